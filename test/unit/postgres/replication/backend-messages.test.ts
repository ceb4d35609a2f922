import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { MalformedError } from '../../../../src/errors.ts';
import { LARGE_MESSAGE_BYTES, MessageSplitter } from '../../../../src/postgres/replication/backend-messages.ts';
import { copyData, int4 } from '../../../support/codecs/pgoutput.ts';

/** A backend message of any kind. */
function message(kind: string, content: Uint8Array | string = ''): Buffer {
  return Buffer.concat([Buffer.from(kind, 'latin1'), int4(content.length + 4), Buffer.from(content)]);
}

/** What the splitter makes of these reads: runs in their order, `d` in front of CopyData and `-` of others. */
function split(reads: readonly Buffer[]): string[] {
  const runs: string[] = [];
  const splitter = new MessageSplitter({
    onCopyData: (messages) => runs.push(`d ${messages.toString('latin1')}`),
    onCopyDataPart: (part) => runs.push(`p ${part.toString('latin1')}`),
    onOther: (messages) => runs.push(`- ${messages.toString('latin1')}`),
  });
  for (const read of reads) splitter.push(Buffer.from(read));
  return runs;
}

const ROW = copyData(Buffer.from('row'));
const OTHER_ROW = copyData(Buffer.from('another row'));
const NOTICE = message('N', 'notice');

describe('MessageSplitter', () => {
  test('gives runs of CopyData and runs of others as they lie in the read', () => {
    const bytes = Buffer.concat([message('W', '123'), ROW, OTHER_ROW, NOTICE, message('Z', 'I'), ROW]);
    expect(split([bytes])).toEqual([
      `- ${message('W', '123').toString('latin1')}`,
      `d ${Buffer.concat([ROW, OTHER_ROW]).toString('latin1')}`,
      `- ${Buffer.concat([NOTICE, message('Z', 'I')]).toString('latin1')}`,
      `d ${ROW.toString('latin1')}`,
    ]);
  });

  test('ends a run after the message that reaches 128 KiB', () => {
    const large = copyData(Buffer.alloc(50_000, 'x'));
    const larger = copyData(Buffer.alloc(200_000, 'y'));
    const runs = split([Buffer.concat([large, large, large, large, larger, ROW])]);
    expect(runs.map((run) => run.length - 2)).toEqual([3 * large.length, large.length + larger.length, ROW.length]);
  });

  test.each([1, 4, 5, 6, 700_000])('gives a large CopyData message that is cut after %d bytes in parts', (cut) => {
    const large = copyData(Buffer.alloc(LARGE_MESSAGE_BYTES, 'x'));
    const bytes = Buffer.concat([ROW, large, OTHER_ROW]);
    const end = ROW.length + cut;
    const last = bytes.length - OTHER_ROW.length - 3;
    const runs = split([bytes.subarray(0, end), bytes.subarray(end, last), bytes.subarray(last)]);
    expect(runs.map((run) => run[0]).filter((kind, index, all) => kind !== all[index - 1])).toEqual(['d', 'p', 'd']);
    const parts = runs.filter((run) => run[0] === 'p');
    expect(parts[0]!.length).toBeGreaterThanOrEqual(2 + 5);
    expect(parts.map((run) => run.slice(2)).join('') === large.toString('latin1')).toBe(true);
    expect(runs.at(-1)).toBe(`d ${OTHER_ROW.toString('latin1')}`);
  });

  test('gives a large message of another kind whole', () => {
    const large = message('N', Buffer.alloc(LARGE_MESSAGE_BYTES, 'x'));
    const runs = split([large.subarray(0, 9), large.subarray(9)]);
    expect(runs.map((run) => [run[0], run.length - 2])).toEqual([['-', large.length]]);
  });

  test('shares the memory of the read', () => {
    const bytes = Buffer.concat([ROW, OTHER_ROW]);
    const runs: Buffer[] = [];
    new MessageSplitter({ onCopyData: (run) => runs.push(run), onCopyDataPart: () => {}, onOther: () => {} }).push(
      bytes,
    );
    expect(runs.map((run) => [run.buffer === bytes.buffer, run.length])).toEqual([[true, bytes.length]]);
  });

  test('gives a message that two reads cut when it is whole, and at once', () => {
    const bytes = Buffer.concat([ROW, OTHER_ROW, NOTICE]);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const runs: string[] = [];
      const splitter = new MessageSplitter({
        onCopyData: (run) => runs.push(run.toString('latin1')),
        onCopyDataPart: () => {},
        onOther: (run) => runs.push(run.toString('latin1')),
      });
      splitter.push(Buffer.from(bytes.subarray(0, cut)));
      const ends = [0, ROW.length, ROW.length + OTHER_ROW.length, bytes.length];
      const whole = ends.findLast((end) => end <= cut);
      expect(runs.join('')).toBe(bytes.toString('latin1', 0, whole));
      splitter.push(Buffer.from(bytes.subarray(cut)));
      expect(runs.join('')).toBe(bytes.toString('latin1'));
    }
  });

  test('gives the same messages in the same order, however the reads cut them', () => {
    const messages = fc.array(
      fc.tuple(fc.constantFrom('d', 'd', 'd', 'N', 'Z', 'c', 'E'), fc.uint8Array({ maxLength: 40 })),
      { minLength: 1, maxLength: 20 },
    );
    fc.assert(
      fc.property(messages, fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 60 }), (parts, readBytes) => {
        const bytes = Buffer.concat(parts.map(([kind, content]) => message(kind, content)));
        const reads: Buffer[] = [];
        let at = 0;
        for (const count of readBytes) {
          if (at >= bytes.length) break;
          reads.push(bytes.subarray(at, at + count));
          at += count;
        }
        reads.push(bytes.subarray(at));
        const runs = split(reads);
        expect(runs.map((run) => run.slice(2)).join('')).toBe(bytes.toString('latin1'));
        for (const run of runs) expect(kindsOf(run.slice(2))).toMatch(run.startsWith('d') ? /^d+$/ : /^[^d]+$/);
      }),
    );
  });

  test('puts a message of many reads together', () => {
    const large = copyData(Buffer.alloc(100_000, 'x'));
    const reads = Array.from({ length: 101 }, (_, part) => large.subarray(part * 1_000, (part + 1) * 1_000));
    expect(split([...reads, ROW])).toEqual([`d ${large.toString('latin1')}`, `d ${ROW.toString('latin1')}`]);
  });

  test.each([0, 3, -1, 0x4000_0000])('refuses a length of %d, wherever the read cuts its header', (length) => {
    const bytes = Buffer.concat([ROW, Buffer.from('d'), int4(length)]);
    for (let cut = ROW.length; cut <= bytes.length; cut++) {
      expect(() => split([bytes.subarray(0, cut), bytes.subarray(cut)])).toThrow(MalformedError);
    }
  });
});

function kindsOf(run: string): string {
  const bytes = Buffer.from(run, 'latin1');
  let kinds = '';
  for (let at = 0; at < bytes.length; at += 1 + bytes.readInt32BE(at + 1)) kinds += String.fromCharCode(bytes[at]!);
  return kinds;
}
