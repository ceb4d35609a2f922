/**
 * Compares the records that committed changes must lead to with the records that were read: pure, shared by the demo and the
 * end-to-end tests.
 *
 * Delivery is at least once. So within one topic and key the records must be the expected ones in order, and any stretch of
 * them may be repeated: repeats are counted and accepted, gaps and reorders are not.
 */
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';

/** Whole seconds since 1970, both ends included. */
export interface SecondsRange {
  readonly from: number;
  readonly to: number;
}

/** A record that a committed change must lead to. */
export interface ExpectedRecord {
  readonly topic: string;
  /** Namespace, a space, process id */
  readonly key: string;
  /** Everything in the record except its created_at, in a form that is equal only for equal records */
  readonly content: string;
  /** The range of the record's created_at: one second, or the time around the commit that it comes from */
  readonly createdAt: SecondsRange;
}

/** A record that was read, decoded. */
export interface ReadRecord {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  readonly key: Buffer;
  /** As in `ExpectedRecord`; undefined when the value could not be decoded */
  readonly content: string | undefined;
  /** Seconds since 1970; NaN when the value could not be decoded */
  readonly createdAt: number;
}

/** Options of `compare`. */
export interface Comparison {
  /** In the order of commits for each key; keys and topics may alternate freely */
  readonly expected: Iterable<ExpectedRecord>;
  /** In the order of offsets for each partition */
  readonly read: Iterable<ReadRecord>;
  readonly partitionCounts: ReadonlyMap<string, number>;
}

/** Result of a comparison; every number except `expected`, `read` and `duplicates` must be 0. */
export interface Verdict {
  /** Number of records that the committed changes must lead to */
  readonly expected: number;
  readonly read: number;
  /** Records with the content of an earlier one of the same topic and key */
  readonly duplicates: number;
  readonly missing: number;
  /** Records that no committed change explains, and undecodable ones */
  readonly unexpected: number;
  /** First occurrences after the first occurrence of a later record of the same topic and key */
  readonly outOfOrder: number;
  readonly wrongPartition: number;
  /** Records whose created_at is not the time of their row or commit */
  readonly wrongTime: number;
  readonly ok: boolean;
  /** The first findings in words, without payloads */
  readonly findings: readonly string[];
}

const MAX_FINDINGS = 20;

/** Compares the expected records with those that were read. */
export function compare({ expected, read, partitionCounts }: Comparison): Verdict {
  const sequences = new Map<string, Sequence>();
  let expectedCount = 0;
  for (const record of expected) {
    const id = sequenceId(record.topic, record.key);
    let sequence = sequences.get(id);
    if (sequence === undefined) {
      sequence = new Sequence();
      sequences.set(id, sequence);
    }
    sequence.expect(record);
    expectedCount++;
  }

  const counts = { read: 0, duplicates: 0, unexpected: 0, outOfOrder: 0, wrongPartition: 0, wrongTime: 0, missing: 0 };
  const findings: string[] = [];
  const find = (what: string, record: ReadRecord): void => {
    if (findings.length >= MAX_FINDINGS) return;
    findings.push(`${what}: ${record.topic}/${record.partition}@${record.offset} key ${record.key.toString()}`);
  };
  for (const record of read) {
    counts.read++;
    const count = partitionCounts.get(record.topic);
    if (count === undefined || phash2(record.key) % count !== record.partition) {
      counts.wrongPartition++;
      find('wrong partition', record);
    }
    const sequence = sequences.get(sequenceId(record.topic, record.key.toString()));
    const match = record.content === undefined ? undefined : sequence?.match(record.content, record.createdAt);
    if (match === undefined) {
      counts.unexpected++;
      find(record.content === undefined ? 'cannot be decoded' : 'unexpected', record);
      continue;
    }
    if (match.duplicate) counts.duplicates++;
    if (match.late) {
      counts.outOfOrder++;
      find('out of order', record);
    }
    if (!covers(match.expected.createdAt, record.createdAt)) {
      counts.wrongTime++;
      find('wrong created_at', record);
    }
  }
  for (const sequence of sequences.values()) {
    for (const record of sequence.missing()) {
      counts.missing++;
      if (findings.length < MAX_FINDINGS) findings.push(`missing: ${record.topic} key ${record.key}`);
    }
  }
  const { missing, unexpected, outOfOrder, wrongPartition, wrongTime } = counts;
  const ok = missing + unexpected + outOfOrder + wrongPartition + wrongTime === 0;
  return { expected: expectedCount, ...counts, ok, findings };
}

/** Namespaces and topics hold no NUL byte. */
function sequenceId(topic: string, key: string): string {
  return `${topic}\0${key}`;
}

/** NaN lies in no range. */
function covers({ from, to }: SecondsRange, seconds: number): boolean {
  return seconds >= from && seconds <= to;
}

interface Match {
  readonly expected: ExpectedRecord;
  readonly duplicate: boolean;
  /** First seen after a later record was seen */
  readonly late: boolean;
}

/** The expected records of one topic and key, and which of them have been read. */
class Sequence {
  readonly #expected: ExpectedRecord[] = [];
  readonly #seen: boolean[] = [];
  /** Indices by content, ascending: equal records, such as a second repair, share one content */
  readonly #indices = new Map<string, number[]>();
  /** The first index that was not seen */
  #frontier = 0;
  #lastSeen = -1;

  expect(record: ExpectedRecord): void {
    const index = this.#expected.push(record) - 1;
    this.#seen.push(false);
    const same = this.#indices.get(record.content);
    if (same === undefined) this.#indices.set(record.content, [index]);
    else same.push(index);
  }

  /**
   * Finds the expected record that this is. Where equal ones make that ambiguous, the match that needs no fault wins: the
   * next in order, then the one after a gap that was found before, then a repeat, and only then a jump.
   */
  match(content: string, createdAt: number): Match | undefined {
    const same = this.#indices.get(content);
    if (same === undefined) return undefined;
    const timely = same.filter((index) => covers((this.#expected[index] as ExpectedRecord).createdAt, createdAt));
    const candidates = timely.length > 0 ? timely : same;
    const next = [this.#frontier, this.#lastSeen + 1].find((index) => candidates.includes(index) && !this.#seen[index]);
    const index = next ?? candidates.find((candidate) => this.#seen[candidate]) ?? (candidates[0] as number);
    const duplicate = this.#seen[index] === true;
    const late = !duplicate && index < this.#lastSeen;
    this.#seen[index] = true;
    if (index > this.#lastSeen) this.#lastSeen = index;
    while (this.#seen[this.#frontier]) this.#frontier++;
    return { expected: this.#expected[index] as ExpectedRecord, duplicate, late };
  }

  missing(): ExpectedRecord[] {
    return this.#expected.filter((_, index) => !this.#seen[index]);
  }
}
