import { describe, expect, test } from 'bun:test';
import { MalformedError } from '../../../../src/errors.ts';
import { FrameReader } from '../../../../src/postgres/replication/frames.ts';
import {
  type InsertMessage,
  isBinary,
  MessageDecoder,
  type UpdateMessage,
} from '../../../../src/postgres/replication/pgoutput.ts';
import * as build from '../../../support/codecs/pgoutput.ts';
import { UNCHANGED } from '../../../support/codecs/pgoutput.ts';

function decode(bytes: Buffer): unknown {
  return build.snapshot(new MessageDecoder().decode(bytes, 0));
}

/** Changes one byte of a good message and gives the error. */
function failureWith(bytes: Buffer, at: number, value: number): MalformedError {
  const changed = Buffer.from(bytes);
  changed[at] = value;
  try {
    new MessageDecoder().decode(changed, 0);
  } catch (error) {
    expect(error).toBeInstanceOf(MalformedError);
    return error as MalformedError;
  }
  throw new Error('Decoded a message that is malformed');
}

const BIG_LSN = 0xffff_ffff_0000_0001n;

describe('MessageDecoder', () => {
  const cases: [string, Buffer, unknown][] = [
    [
      'Begin',
      build.begin({ finalLsn: BIG_LSN, commitTimeMicros: -3n, xid: 0xffff_fffe }),
      { tag: 'begin', finalLsn: BIG_LSN, commitTimeMicros: -3n, xid: 0xffff_fffe },
    ],
    [
      'Commit',
      build.commit({ commitLsn: 1n, endLsn: BIG_LSN, commitTimeMicros: 5n }),
      { tag: 'commit', commitLsn: 1n, endLsn: BIG_LSN, commitTimeMicros: 5n },
    ],
    ['Origin', build.origin(BIG_LSN, 'источник'), { tag: 'origin', commitLsn: BIG_LSN, name: 'источник' }],
    [
      'Relation',
      build.relation({
        relationId: 0xffff_ffff,
        schema: '',
        name: 'default/"x"_события',
        replicaIdentity: 'i',
        columns: [
          { name: 'id', typeOid: 0xffff_fffe, typeModifier: 260, isKey: true },
          { name: 'колонка', typeOid: 25 },
        ],
      }),
      {
        tag: 'relation',
        relationId: 0xffff_ffff,
        schema: '',
        name: 'default/"x"_события',
        replicaIdentity: 'i',
        columns: [
          { name: 'id', typeOid: 0xffff_fffe, typeModifier: 260, isKey: true },
          { name: 'колонка', typeOid: 25, typeModifier: -1, isKey: false },
        ],
      },
    ],
    [
      'Relation without columns',
      build.relation({ relationId: 1, name: 't', replicaIdentity: 'n', columns: [] }),
      { tag: 'relation', relationId: 1, schema: 'public', name: 't', replicaIdentity: 'n', columns: [] },
    ],
    [
      'Type',
      build.type(16_386, 'public', 'process_status'),
      { tag: 'type', typeOid: 16_386, schema: 'public', name: 'process_status' },
    ],
    [
      'Insert',
      build.insert(0xffff_fff0, [null, UNCHANGED, 'text', Buffer.from([0, 255]), '', Buffer.alloc(0)]),
      {
        tag: 'insert',
        relationId: 0xffff_fff0,
        newTuple: [null, UNCHANGED, 'text', Buffer.from([0, 255]), '', Buffer.alloc(0)],
      },
    ],
    ['Insert without columns', build.insert(7, []), { tag: 'insert', relationId: 7, newTuple: [] }],
    [
      'Insert with the most columns there can be',
      build.insert(7, new Array(1664).fill('a')),
      { tag: 'insert', relationId: 7, newTuple: new Array(1664).fill('a') },
    ],
    [
      'Update without an old tuple',
      build.update(7, undefined, ['новое']),
      { tag: 'update', relationId: 7, oldKind: undefined, oldTuple: undefined, newTuple: ['новое'] },
    ],
    [
      'Update with the old key',
      build.update(7, { kind: 'K', columns: ['a', null] }, ['b', UNCHANGED]),
      { tag: 'update', relationId: 7, oldKind: 'K', oldTuple: ['a', null], newTuple: ['b', UNCHANGED] },
    ],
    [
      'Update with the old row',
      build.update(7, { kind: 'O', columns: ['a', 'b'] }, ['c', null]),
      { tag: 'update', relationId: 7, oldKind: 'O', oldTuple: ['a', 'b'], newTuple: ['c', null] },
    ],
    [
      'Delete with the key',
      build.remove(7, { kind: 'K', columns: ['a', null] }),
      { tag: 'delete', relationId: 7, oldKind: 'K', oldTuple: ['a', null] },
    ],
    [
      'Delete with the row',
      build.remove(7, { kind: 'O', columns: ['a', 'b'] }),
      { tag: 'delete', relationId: 7, oldKind: 'O', oldTuple: ['a', 'b'] },
    ],
    ['Truncate', build.truncate([1, 0xffff_ffff], 3), { tag: 'truncate', options: 3, relationIds: [1, 0xffff_ffff] }],
    [
      'Message',
      build.logicalMessage({ transactional: true, lsn: BIG_LSN, prefix: 'cdc-notifier', content: Buffer.from([0, 1]) }),
      { tag: 'message', transactional: true, lsn: BIG_LSN, prefix: 'cdc-notifier', content: Buffer.from([0, 1]) },
    ],
    [
      'Message without prefix and content',
      build.logicalMessage({ transactional: false, lsn: 0n, prefix: '', content: Buffer.alloc(0) }),
      { tag: 'message', transactional: false, lsn: 0n, prefix: '', content: Buffer.alloc(0) },
    ],
  ];

  test.each(cases)('decode reads %s', (_name, bytes, expected) => {
    expect(decode(bytes)).toEqual(expected);
  });

  test.each(cases)('decode refuses every truncation of %s, at an offset within it', (_name, bytes) => {
    for (let length = 0; length < bytes.length; length++) {
      let error: unknown;
      try {
        new MessageDecoder().decode(Buffer.from(bytes.subarray(0, length)), 0);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(MalformedError);
      expect((error as MalformedError).offset).toBeLessThanOrEqual(length);
    }
  });

  test('decode refuses every kind of message that protocol version 1 does not have', () => {
    const known = new Set([...'BCORYIUDTM'].map((letter) => letter.charCodeAt(0)));
    for (let kind = 0; kind < 256; kind++) {
      if (known.has(kind)) continue;
      const error = failureWith(build.begin(), 0, kind);
      expect(error.offset).toBe(0);
      expect(error.message).toBe(
        `Cannot decode pgoutput: unknown message kind 0x${kind.toString(16).padStart(2, '0')} at offset 0`,
      );
    }
  });

  test('decode refuses values that the protocol does not know, at their offset', () => {
    const update = build.update(7, { kind: 'O', columns: ['a'] }, ['b']);
    const relation = build.relation({ name: 't', columns: [{ name: 'c', typeOid: 25 }] });
    const message = build.logicalMessage({ transactional: true, lsn: 1n, prefix: '', content: Buffer.alloc(0) });
    const letterX = 0x58;
    expect(failureWith(build.commit(), 1, 1).offset).toBe(1);
    expect(failureWith(build.insert(7, ['a']), 5, letterX).offset).toBe(5);
    expect(failureWith(build.insert(7, ['a']), 8, letterX).offset).toBe(8);
    expect(failureWith(update, 5, letterX).offset).toBe(5);
    expect(failureWith(update, 14, letterX).offset).toBe(14);
    expect(failureWith(build.remove(7, { kind: 'K', columns: ['a'] }), 5, 0x4e).offset).toBe(5);
    expect(failureWith(relation, 14, letterX).offset).toBe(14);
    expect(failureWith(relation, 17, 2).offset).toBe(17);
    expect(failureWith(build.truncate([1]), 5, 4).offset).toBe(5);
    expect(failureWith(message, 1, 2).offset).toBe(1);
  });

  test('decode refuses a column whose length is negative or larger than what is left', () => {
    const insert = build.insert(7, ['abc']);
    for (const length of [4, 0x7fff_ffff, -1, -0x8000_0000]) {
      const bytes = Buffer.from(insert);
      bytes.writeInt32BE(length, 9);
      expect(() => new MessageDecoder().decode(bytes, 0)).toThrow(MalformedError);
    }
  });

  test('decode refuses more columns than PostgreSQL can have', () => {
    const bytes = build.insert(7, new Array(1665).fill(null));
    expect(() => new MessageDecoder().decode(bytes, 0)).toThrow('1665 columns where 1664 are possible at offset 6');
  });

  test('decode refuses a Truncate of more relations than there are bytes, without reserving room for them', () => {
    const bytes = build.truncate([1]);
    bytes.writeUInt32BE(0xffff_ffff, 1);
    expect(() => new MessageDecoder().decode(bytes, 0)).toThrow(MalformedError);
  });

  test('decode reuses its row messages: a later one never shows columns of an earlier one', () => {
    const decoder = new MessageDecoder();
    const first = decoder.decode(build.update(7, { kind: 'O', columns: ['a', 'b', 'c'] }, ['d', 'e', 'f']), 0);
    expect(build.snapshot(first)).toMatchObject({ oldTuple: ['a', 'b', 'c'], newTuple: ['d', 'e', 'f'] });
    const second = decoder.decode(build.update(8, undefined, [null]), 0);
    expect(second).toBe(first);
    expect(build.snapshot(second)).toEqual({
      tag: 'update',
      relationId: 8,
      oldKind: undefined,
      oldTuple: undefined,
      newTuple: [null],
    });
  });

  test('isBinary tells the two formats apart', () => {
    const { newTuple } = new MessageDecoder().decode(build.insert(7, ['a', Buffer.from('a')]), 0) as InsertMessage;
    expect([isBinary(newTuple, 0), isBinary(newTuple, 1)]).toEqual([false, true]);
  });
});

describe('captures from a real server', () => {
  const read = (name: (typeof build.CAPTURES)[number]): { note: string; message: unknown }[] => {
    const reader = new FrameReader();
    return build.readCapture(name).map(({ note, bytes }) => {
      reader.start(build.copyData(bytes));
      return { note, message: build.snapshot(reader.next()!) };
    });
  };

  test.each(build.CAPTURES)('%s holds every message of the protocol', (name) => {
    const tags = new Set(read(name).map(({ message }) => (message as { tag: string }).tag));
    expect([...tags].sort()).toEqual(
      [
        'begin',
        'commit',
        'delete',
        'insert',
        'keepalive',
        'message',
        'origin',
        'relation',
        'truncate',
        'type',
        'update',
      ].sort(),
    );
  });

  /** What one step of the capture sent, without object ids, LSNs and times. */
  const step = (name: (typeof build.CAPTURES)[number], note: string): unknown[] =>
    read(name)
      .filter((frame) => frame.note.startsWith(note))
      .map(({ message }) => message);

  test.each([
    ['postgres-14-binary', Buffer.from],
    ['postgres-18-binary', Buffer.from],
    ['postgres-14-text', String],
    ['postgres-18-text', String],
  ] as const)('%s: the old tuples of each replica identity', (name, value) => {
    const text = (label: string): unknown => value(label as string & Uint8Array);
    const updates = (note: string): UpdateMessage[] =>
      step(name, note).filter((message) => (message as { tag: string }).tag === 'update') as UpdateMessage[];

    expect(updates('identity DEFAULT: update without')[0]).toMatchObject({ oldKind: undefined, oldTuple: undefined });
    expect(updates('identity DEFAULT: update of the primary key')[0]).toMatchObject({
      oldKind: 'K',
      oldTuple: [text('p-2'), null, null, null, null, null, null],
    });
    const [unchanged] = updates('identity DEFAULT: TOASTed');
    expect((unchanged!.newTuple as unknown as unknown[])[2]).toBe(UNCHANGED);

    const full = updates('identity FULL from here on').map(({ oldKind, oldTuple, newTuple }) => {
      const columns = [oldTuple, newTuple] as unknown as unknown[][];
      return [oldKind, columns[0]![1], columns[1]![1], columns[1]![2] === UNCHANGED];
    });
    expect(full).toEqual([
      ['O', text('error'), text('error'), false],
      ['O', text('error'), text('running'), false],
      ['O', text('running'), text('error'), false],
      ['O', text('error'), text('running'), true],
      ['O', text('running'), text('error'), true],
    ]);
    expect(updates('identity USING INDEX')[0]).toMatchObject({ oldKind: 'K', oldTuple: [null, text('a'), null] });
  });

  test('messages without rows, whole', () => {
    expect(step('postgres-18-binary', 'transactional logical message')[1]).toMatchObject({
      tag: 'message',
      transactional: true,
      prefix: 'cdc-notifier',
      content: Buffer.from('граница'),
    });
    expect(step('postgres-18-binary', 'non-transactional')).toMatchObject([
      { tag: 'message', transactional: false, prefix: '', content: Buffer.from([0, 0, 255]) },
    ]);
    expect(step('postgres-18-binary', 'transaction of a replication origin')[1]).toEqual({
      tag: 'origin',
      commitLsn: 0x16_b374_d848n,
      name: 'upstream',
    });
    const truncates = ['truncate of several', 'truncate of one'].map((note) =>
      step('postgres-18-binary', note).find((message) => (message as { tag: string }).tag === 'truncate'),
    );
    expect(truncates).toMatchObject([
      { options: 3, relationIds: [expect.any(Number), expect.any(Number), expect.any(Number)] },
      { options: 0, relationIds: [expect.any(Number)] },
    ]);
  });

  test('columns added in mid-stream come with a new Relation', () => {
    const names = step('postgres-18-binary', 'columns added')
      .filter((message) => (message as { tag: string }).tag === 'relation')
      .flatMap((message) => (message as { columns: { name: string }[] }).columns.map((column) => column.name));
    expect(names).toEqual([
      'process_id',
      'status',
      'detail',
      'aux_state',
      'created_at',
      'metadata',
      'corrupted_by',
      'previous_status',
      'status_changed_at',
    ]);
  });
});
