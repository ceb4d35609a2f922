/** Parsers of bytes and texts that need no connection: frames, rows, payloads, LSNs. Mutations start from real input. */
import { ByteWriter } from '../../src/bytes/writer.ts';
import { convertChange } from '../../src/conversion/convert.ts';
import { FormatVersionReader } from '../../src/conversion/format-version.ts';
import { neededColumns } from '../../src/conversion/needed-columns.ts';
import { encodeParkedRow } from '../../src/conversion/parking-record.ts';
import { EventPayload } from '../../src/conversion/payload/payload.ts';
import { resolveRelation, type SourceRelation } from '../../src/conversion/relation.ts';
import { InvalidRowError } from '../../src/errors.ts';
import { formatLsn, parseLsn } from '../../src/lsn.ts';
import { encodeLedger, parseLedger } from '../../src/postgres/continuity/ledger.ts';
import { parseTimelineHistory, sharedUpTo } from '../../src/postgres/continuity/timeline.ts';
import { FrameReader, type ReplicationMessage } from '../../src/postgres/replication/frames.ts';
import { LargeRowReader } from '../../src/postgres/replication/large-row.ts';
import type { BeginMessage, RelationMessage, RowMessage } from '../../src/postgres/replication/pgoutput.ts';
import { compressTerm, encodePayload, encodeValue, randomValue } from '../support/codecs/etf.ts';
import {
  CAPTURES,
  type ColumnValue,
  copyData,
  EVENTS_COLUMNS,
  insert,
  int2,
  int8,
  jsonb,
  keepalive,
  logicalMessage,
  origin,
  PROCESSES_COLUMNS,
  readCapture,
  relation,
  remove,
  timestamptz,
  truncate,
  UNCHANGED,
  update,
  xlogData,
} from '../support/codecs/pgoutput.ts';
import { decodeValue } from '../support/codecs/thrift-reader.ts';
import { readEventVectors, readInvalidVectors } from '../support/codecs/vectors.ts';
import type { FuzzTarget } from './campaign.ts';
import { below, mutateBytes, mutateText, pick, type Random } from './mutate.ts';

const NAMESPACE = 'default/default';
const NAMESPACES = new Set([NAMESPACE]);

/** Frames of real servers, and messages that the captures lack, to rows, records and parked rows. */
export function frames(): FuzzTarget {
  const captures = CAPTURES.map((name) => {
    const read = readCapture(name).map(({ bytes }) => bytes);
    return { frames: [...read, ...rareFrames()], relations: relationsOf(read) };
  });
  return {
    name: 'frames',
    run(random) {
      const { frames, relations } = pick(random, captures);
      const sequence = random() < 0.5 ? rowFrames(random) : damagedCapture(frames, random);
      const described = new Map(relations);
      if (random() < 0.3) return processChunks(condense(sequence, described, random), described);
      const chunks = random() < 0.3 ? [copyData(...sequence)] : sequence.map((frame) => copyData(frame));
      return processChunks(chunks, described);
    },
  };
}

/** Each frame as a large row that arrives in pieces: cut anywhere, with room for some of its values. */
function* condense(sequence: readonly Buffer[], relations: Map<number, RelationMessage>, random: Random) {
  const reader = new LargeRowReader({
    neededColumns: (tuple) => {
      const described = relations.get(tuple.relationId);
      const resolved = described && resolveRelation(described, NAMESPACES);
      return resolved === undefined ? [] : neededColumns(resolved, tuple);
    },
    maxRowBytes: below(random, 100),
    omitFromBytes: below(random, 10),
  });
  for (const frame of sequence) {
    const message = copyData(frame);
    for (let start = 0; start < message.length; ) {
      // The first piece has the whole header.
      const end = start + 1 + below(random, message.length) + (start === 0 ? 4 : 0);
      const condensed = reader.push(message.subarray(start, end));
      if (condensed !== undefined) yield condensed;
      start = end;
    }
  }
}

/** A damaged frame and some frames after it: the effect of a damaged Relation shows in its rows. */
function damagedCapture(frames: readonly Buffer[], random: Random): Buffer[] {
  const start = below(random, frames.length);
  const sequence = frames.slice(start, start + 1 + below(random, 6));
  return sequence.with(0, mutateBytes(sequence[0]!, random));
}

const RELATION_ID = 16_400;
const GOOD_ROWS = {
  events: {
    columns: EVENTS_COLUMNS,
    row: [
      Buffer.from('p'),
      int8(1n),
      int2(1),
      timestamptz(0n),
      jsonb('{"format_version": 1}'),
      encodePayload({ nl: {} }),
    ],
  },
  processes: {
    columns: PROCESSES_COLUMNS.slice(0, 4),
    row: [Buffer.from('p'), Buffer.from('error'), Buffer.from('detail'), null],
  },
} as const;

/** A relation and a row in valid frames, with damaged columns. */
function rowFrames(random: Random): Buffer[] {
  const kind = pick(random, ['events', 'processes'] as const);
  const { columns, row } = GOOD_ROWS[kind];
  const described = columns.map((column) =>
    random() < 0.05 ? { ...column, typeOid: pick(random, [17, 25, 16_386, below(random, 2 ** 32)]) } : column,
  );
  const name = `${NAMESPACE}_${kind}`;
  const values = () => damagedRow(row, random);
  const old = {
    kind: pick(random, ['K', 'O'] as const),
    columns: damagedRow(['p', 'running', ...row.slice(2)], random),
  };
  const change = pick(random, [
    () => insert(RELATION_ID, values()),
    () => update(RELATION_ID, random() < 0.8 ? old : undefined, values()),
    () => remove(RELATION_ID, old),
  ]);
  return [xlogData(relation({ relationId: RELATION_ID, name, columns: described })), xlogData(change())];
}

function damagedRow(row: readonly ColumnValue[], random: Random): ColumnValue[] {
  const damaged = row.map((value) => (random() < 0.15 ? damagedValue(value, random) : value));
  const choice = random();
  if (choice < 0.03) return damaged.slice(1);
  return choice < 0.06 ? [...damaged, null] : damaged;
}

function damagedValue(value: ColumnValue, random: Random): ColumnValue {
  const choice = random();
  if (choice < 0.15) return null;
  if (choice < 0.3) return UNCHANGED;
  if (choice < 0.4) return 'in text';
  return mutateBytes(value instanceof Uint8Array ? Buffer.from(value) : Buffer.from('value'), random);
}

function rareFrames(): Buffer[] {
  const content = Buffer.from(NAMESPACE);
  return [
    xlogData(origin(1n, 'elsewhere')),
    xlogData(truncate([1, 2, 3], 3)),
    xlogData(logicalMessage({ transactional: true, lsn: 1n, prefix: 'cdc-notifier', content })),
    keepalive(0x16_b374_d848n, { replyRequested: true }),
  ];
}

function relationsOf(frames: readonly Buffer[]): Map<number, RelationMessage> {
  const reader = new FrameReader();
  const relations = new Map<number, RelationMessage>();
  reader.start(copyData(...frames));
  for (let message = reader.next(); message !== undefined; message = reader.next()) {
    if (message.tag === 'relation') relations.set(message.relationId, message);
  }
  return relations;
}

const draft = { key: new ByteWriter(), value: new ByteWriter() };

/** Processes chunks as the service does: the first error ends it, and is thrown. */
function processChunks(chunks: Iterable<Buffer>, relations: Map<number, RelationMessage>): string {
  const reader = new FrameReader();
  let recordCount = 0;
  for (const chunk of chunks) {
    reader.start(chunk);
    for (let message = reader.next(); message !== undefined; message = reader.next()) {
      if (message.tag === 'relation') relations.set(message.relationId, message);
      if (isRow(message) && convertRow(relations.get(message.relationId), message) !== undefined) recordCount++;
      if (reader.walStart !== undefined) formatLsn(reader.walStart);
    }
  }
  return recordCount > 0 ? 'records' : 'no record';
}

function isRow(message: ReplicationMessage): message is RowMessage {
  return message.tag === 'insert' || message.tag === 'update' || message.tag === 'delete';
}

function convertRow(described: RelationMessage | undefined, change: RowMessage): string | undefined {
  if (described === undefined) return undefined;
  const begin: BeginMessage = { tag: 'begin', finalLsn: 1n, commitTimeMicros: 0n, xid: 700 };
  const row = { databaseRef: 'main', slot: 'slot', namespace: NAMESPACE, relation: described, change, begin, lsn: 1n };
  try {
    const resolved: SourceRelation | undefined = resolveRelation(described, NAMESPACES);
    return resolved && convertChange(resolved, change, begin.commitTimeMicros, draft);
  } catch (error) {
    if (!(error instanceof InvalidRowError)) throw error;
    encodeParkedRow({ ...row, reason: error.message }, draft);
    JSON.parse(draft.value.view().toString());
    throw error;
  }
}

/** Payloads of events: golden, invalid and generated ones, plain and compressed, damaged before or after compression. */
export function etf(): FuzzTarget {
  const payloads = [...readEventVectors(), ...readInvalidVectors()]
    .map(({ payload_hex }) => Buffer.from(payload_hex, 'hex'))
    .filter(({ length }) => length < 20_000);
  const bomb = compressTerm(encodeValue({ bin: Buffer.alloc(16 * 1024 * 1024) }));
  const out = new ByteWriter();
  return {
    name: 'etf',
    run(random) {
      const payload = makePayload(random, { payloads, bomb });
      // The payload is part of a chunk: the bytes around it are not its own.
      const chunk = Buffer.concat([Buffer.of(0xff), payload, Buffer.of(0x83, 0x68, 0x02)]);
      new EventPayload(chunk, 1, 1 + payload.length).writeTo(out.reset());
      // An independent reader must be able to read the result. It is recursive, so only small results.
      if (out.length < 4_096) decodeValue(Buffer.concat([out.view()]));
      return 'value';
    },
  };
}

function makePayload(random: Random, seeds: { readonly payloads: readonly Buffer[]; readonly bomb: Buffer }): Buffer {
  const choice = random();
  if (choice < 0.001) return mutateBytes(seeds.bomb, random);
  if (choice < 0.5) return mutateBytes(pick(random, seeds.payloads), random);
  const value = randomValue(random);
  const integers = pick(random, ['shortest', 'small-big', 'large-big'] as const);
  const atoms = pick(random, ['atom', 'small', 'utf8', 'smallUtf8'] as const);
  const floats = pick(random, ['new', 'text'] as const);
  if (choice < 0.9) return mutateBytes(encodePayload(value, { integers, atoms, floats }), random);
  const term = mutateBytes(encodeValue(value, { integers, atoms, floats }), random);
  return compressTerm(term, random() < 0.2 ? below(random, 2 ** 32) : term.length);
}

const JSON_WORDS = [
  'format_version',
  'format_version',
  '"format_version":',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  'null',
  '1.0',
];
const JSON_EDGES = ['2147483648', '-1', '1e400', '"', '\\', '\\u0066ormat_version', '-', '.', '0', '{"a":', '"1"'];
const METADATA = [
  '{"format_version": 1}',
  '{"a": {"format_version": 2}, "format_version": -7, "b": [1, "x", null, true, {"c": 1.5e3}]}',
  '{"\\u0066ormat_version": 3, "text": "\\"\\\\ \\ud83d\\ude00"}',
  '[{"format_version": 1}]',
  '{"format_version": null}',
];

/** The metadata column: PostgreSQL stores valid JSON only, but a damaged frame may hold anything. */
export function metadata(): FuzzTarget {
  const reader = new FormatVersionReader();
  return {
    name: 'metadata',
    run(random) {
      const depth = random() < 0.01 ? below(random, 200_000) : 0;
      const text = mutateText(pick(random, METADATA), random, [...JSON_WORDS, ...JSON_EDGES]);
      const bytes = Buffer.from('{"a":'.repeat(depth) + text);
      const version = reader.read(bytes, 0, bytes.length);
      return version === undefined ? 'no version' : 'version';
    },
  };
}

const HISTORY = `# how this server came to be
1\t0/5000098\tno recovery target specified

2\t1A/C00000A8\tbefore 2026-11-22 06:21:59.75+00
13\tFFFFFFFF/FFFFFFFF\t
`;

/** Timeline history files, as a server sends them. */
export function timeline(): FuzzTarget {
  const words = ['4294967296', '-1', '0/', '/0', '#', '\t', '\r', ' ', '0x1', '١', '99999999999999999999 0/0', 'G/0'];
  return {
    name: 'timeline',
    run(random) {
      const history = parseTimelineHistory(mutateText(HISTORY, random, words));
      sharedUpTo(history, below(random, 20));
      return 'history';
    },
  };
}

const LEDGER = encodeLedger({
  systemIdentifier: '7575757575757575757',
  timeline: 3,
  instance: 'b1e9c8a0-0000-4000-8000-000000000000',
  revision: 12,
  fromLsn: 0x40n,
  confirmedLsn: 0x16_b374_d848n,
  deliveredLsn: 0x16_b374_d000n,
  closed: true,
  publicationOids: new Map([
    ['invoice', 16_412],
    ['default/default', 16_413],
  ]),
  entryOids: new Map(),
  left: new Map([['former', { oid: 16_414, lsn: 0x50n }]]),
  clusterIds: new Map(),
  configurations: ['0badc0de', '00000001'],
  acceptedLsn: 0x60n,
});

/** Comments that hold ledgers: every owner of a publication may edit them. */
export function ledger(): FuzzTarget {
  const words = [
    '{',
    '}',
    '[',
    ']',
    '"',
    ',',
    ':',
    'null',
    'true',
    '-1',
    '1e99',
    '0/0',
    '"__proto__":',
    '{"a":'.repeat(9),
  ];
  return {
    name: 'ledger',
    run(random) {
      const nested = random() < 0.001 ? '['.repeat(100_000) : '';
      const read = parseLedger(nested + mutateText(LEDGER, random, words));
      if (!Bun.deepEquals(parseLedger(encodeLedger(read)), read))
        throw new Error('A ledger that was encoded and parsed again differs');
      return 'ledger';
    },
  };
}

/** LSN texts, as they come from queries and configurations. */
export function lsn(): FuzzTarget {
  const texts = ['0/0', '16/B374D848', 'FFFFFFFF/FFFFFFFF', '1/00000001'];
  return {
    name: 'lsn',
    run(random) {
      const position = parseLsn(mutateText(pick(random, texts), random, ['/', '0x', ' ', '-', 'g', '０', '00000000']));
      if (parseLsn(formatLsn(position)) !== position)
        throw new Error('An LSN that was formatted and parsed again differs');
      return 'position';
    },
  };
}
