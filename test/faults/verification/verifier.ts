/** Compares what the database committed with the records in the topics and with what the slot confirmed meanwhile. */
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import type { DescribedRecord } from '../../support/codecs/record-text.ts';
import { compare, type Verdict } from '../../support/codecs/verdict.ts';
import { type ConfirmedSample, prematurelyConfirmed } from './confirmed-sampler.ts';
import type { CommittedRecord } from './journal.ts';

/** A loss that the service reported and the configuration accepted: after `fromLsn`, up to `toLsn`. */
export interface LostRange {
  readonly fromLsn: bigint;
  readonly toLsn: bigint;
  /** The namespace concerned; default: all */
  readonly namespace?: string | undefined;
}

/** A record that was read, with the time at which the broker appended it. */
export type ArrivedRecord = DescribedRecord & { readonly timestampMs: number };

/** The facts of a run. */
export interface Run {
  /** In WAL order */
  readonly committed: readonly CommittedRecord[];
  /** In offset order for each partition */
  readonly arrived: readonly ArrivedRecord[];
  readonly samples: readonly ConfirmedSample[];
  /** By topic, every number of partitions that it had; the last is the current one */
  readonly partitionCounts: ReadonlyMap<string, readonly number[]>;
  /** Default none */
  readonly accepted?: readonly LostRange[] | undefined;
}

/** The verdict on a run; `ok` when every promise was kept. */
export interface RunVerdict extends Verdict {
  /** Number of records confirmed before they were in Kafka */
  readonly premature: number;
  /** Number of records missing within an accepted range */
  readonly acceptedAsLost: number;
}

/** Judges a run. */
export function judgeRun({ committed, samples, accepted = [], ...run }: Run): RunVerdict {
  const arrived = inOneCount(run);
  const firstAppended = new Map<string, number>();
  for (const { topic, key, content, timestampMs } of arrived) {
    if (content === undefined) continue;
    const id = identity(topic, key.toString(), content);
    firstAppended.set(id, Math.min(timestampMs, firstAppended.get(id) ?? Number.POSITIVE_INFINITY));
  }
  const appended = committed.map((record) => ({
    ...record,
    appendedAtMs: firstAppended.get(identity(record.topic, record.key, record.content)),
  }));
  const owed = appended.filter(
    (record) => record.appendedAtMs !== undefined || !accepted.some((range) => covers(range, record)),
  );
  const partitionCounts = new Map([...run.partitionCounts].map(([topic, counts]) => [topic, counts.at(-1) as number]));
  const verdict = compare({ expected: owed, read: arrived, partitionCounts });
  const premature = prematurelyConfirmed(samples, owed);
  return {
    ...verdict,
    premature: premature.length,
    acceptedAsLost: appended.length - owed.length,
    ok: verdict.ok && premature.length === 0,
    findings: [
      ...verdict.findings,
      ...premature.slice(0, 5).map(({ topic, key }) => `confirmed before it was appended: ${topic} key ${key}`),
    ],
  };
}

/**
 * The records as if each topic had had its current partitions from the start. When a topic grows, a key may move to another
 * partition: its records are then ordered by the time of their append.
 */
function inOneCount({ arrived, partitionCounts }: Pick<Run, 'arrived' | 'partitionCounts'>): readonly ArrivedRecord[] {
  if ([...partitionCounts.values()].every(({ length }) => length === 1)) return arrived;
  return arrived
    .map((record) => {
      const hash = phash2(record.key);
      const counts = partitionCounts.get(record.topic) ?? [];
      const fits = counts.some((count) => hash % count === record.partition);
      return fits ? { ...record, partition: hash % (counts.at(-1) as number) } : record;
    })
    .sort((a, b) => a.timestampMs - b.timestampMs);
}

function covers({ fromLsn, toLsn, namespace }: LostRange, { endLsn, key }: CommittedRecord): boolean {
  return endLsn > fromLsn && endLsn <= toLsn && (namespace === undefined || key.startsWith(`${namespace} `));
}

function identity(topic: string, key: string, content: string): string {
  return `${topic}\0${key}\0${content}`;
}
