import { describe, expect, test } from 'bun:test';
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import { compare, type ExpectedRecord, type ReadRecord, type Verdict } from './verdict.ts';

const PARTITIONS = 4;
const TIME = { from: 100, to: 101 };

const written = (contents: string, key = 'ns p'): ExpectedRecord[] =>
  [...contents].map((content) => ({ topic: 't', key, content, createdAt: TIME }));

const arrived = (contents: string, change: Partial<ReadRecord> = {}): ReadRecord[] =>
  [...contents].map((content, index) => ({
    topic: 't',
    partition: phash2(Buffer.from('ns p')) % PARTITIONS,
    offset: BigInt(index),
    key: Buffer.from('ns p'),
    content,
    createdAt: 100,
    ...change,
  }));

const judge = (expected: ExpectedRecord[], read: ReadRecord[]): Verdict =>
  compare({ expected, read, partitionCounts: new Map([['t', PARTITIONS]]) });

const good = { duplicates: 0, missing: 0, unexpected: 0, outOfOrder: 0, wrongPartition: 0, wrongTime: 0, ok: true };

describe('compare', () => {
  const cases: [string, string, string, Partial<Verdict>][] = [
    ['accepts nothing for nothing', '', '', {}],
    ['accepts the same in order', 'abc', 'abc', {}],
    ['counts a stretch sent again as duplicates', 'abcd', 'abcbcd', { duplicates: 2 }],
    ['counts a repeat of everything as duplicates', 'abc', 'abcabc', { duplicates: 3 }],
    ['accepts equal records in their places', 'aWbWc', 'aWbWc', {}],
    ['counts a repeated stretch with equal records in it', 'aWbWc', 'aWbWbWc', { duplicates: 2 }],
    ['does not take a repeat for an equal record that comes later', 'abca', 'ababca', { duplicates: 2 }],
    ['finds a missing record in the middle', 'abc', 'ac', { missing: 1, ok: false }],
    ['finds a missing record at the end', 'abc', 'ab', { missing: 1, ok: false }],
    ['finds everything missing', 'abc', '', { missing: 3, ok: false }],
    ['finds an exchange of two records', 'abcd', 'acbd', { outOfOrder: 1, ok: false }],
    ['finds two records after a later one', 'abcd', 'cabd', { outOfOrder: 2, ok: false }],
    ['goes on in order after a gap', 'abcdef', 'abdef', { missing: 1, ok: false }],
    ['goes on in order after a gap where equal records follow', 'abcWdW', 'acWdW', { missing: 1, ok: false }],
    ['finds a record that nothing explains', 'ab', 'axb', { unexpected: 1, ok: false }],
  ];
  test.each(cases)('%s', (_, expected, read, outcome) => {
    const verdict = judge(written(expected), arrived(read));
    expect(verdict).toMatchObject({ ...good, expected: expected.length, read: read.length, ...outcome });
    expect(verdict.findings.length > 0).toBe(!verdict.ok);
  });

  test('keeps keys and topics apart', () => {
    const expected = [...written('a'), ...written('a', 'ns q'), { ...written('a')[0]!, topic: 'u' }];
    expect(judge(expected, arrived('a'))).toMatchObject({ missing: 2, ok: false });
  });

  test('finds a record of a key that was never written', () => {
    const key = Buffer.from('ns z');
    const read = arrived('a', { key, partition: phash2(key) % PARTITIONS });
    expect(judge([], read)).toMatchObject({ ...good, unexpected: 1, ok: false });
  });

  test('finds a wrong partition', () => {
    const partition = (phash2(Buffer.from('ns p')) + 1) % PARTITIONS;
    expect(judge(written('a'), arrived('a', { partition }))).toMatchObject({ ...good, wrongPartition: 1, ok: false });
  });

  test('finds a topic that should not exist', () => {
    expect(judge(written('a'), arrived('a', { topic: 'v' }))).toMatchObject({ wrongPartition: 1, unexpected: 1 });
  });

  test.each([99, 102, Number.NaN])('finds created_at %p outside the range', (createdAt) => {
    expect(judge(written('a'), arrived('a', { createdAt }))).toMatchObject({ ...good, wrongTime: 1, ok: false });
  });

  test('distinguishes equal records by their time', () => {
    const expected = [...written('FWG'), { ...written('W')[0]!, createdAt: { from: 200, to: 201 } }];
    const read = [...arrived('FWGWG'), ...arrived('W', { createdAt: 200 })];
    expect(judge(expected, read)).toMatchObject({ ...good, duplicates: 2 });
  });

  test('counts a value that cannot be decoded as unexpected', () => {
    const read = arrived('a', { content: undefined, createdAt: Number.NaN });
    expect(judge([], read)).toMatchObject({ ...good, unexpected: 1, ok: false });
  });

  test('limits its findings', () => {
    expect(judge(written('a'.repeat(100)), []).findings.length).toBeLessThanOrEqual(20);
  });
});
