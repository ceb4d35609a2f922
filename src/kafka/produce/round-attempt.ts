/** One attempt of a round: one request to each leader, all at once, and what became of each batch. */
import type { ProduceResponse } from '../client/api-versions.ts';
import type { Cluster } from '../client/cluster.ts';
import {
  FORMER_LEADER_SILENT,
  judgeAnswer,
  judgeLeaderless,
  judgeSendError,
  type ProduceFailure,
} from './produce-errors.ts';
import { encodeProduceRequest, errorCodesByBatch } from './produce-request.ts';
import type { RecordBatch } from './record-batch.ts';

/** A leader that has not answered for so long may be one no more: the other brokers are asked */
const LATE_MS = 2_000;

/** Where a batch was sent, and why it was not acknowledged. */
export interface SendFailure {
  readonly failure: ProduceFailure;
  /** Broker id of the leader that it was sent to, -1 if its partition had none */
  readonly sentTo: number;
}

/** A leader's answer to its request, with or without error codes. */
export interface LeaderAnswer {
  readonly roundTripMs: number;
  readonly batches: readonly RecordBatch[];
  readonly throttleTimeMs: number;
}

/** Options of `attemptRound`. */
export interface AttemptOptions {
  readonly cluster: Pick<Cluster, 'metadata' | 'produce'>;
  readonly requestTimeoutMs: number;
  /** Reads the metadata of the cluster again; never rejects */
  readonly refreshMetadata: () => Promise<void>;
  readonly onAnswer: (answer: LeaderAnswer) => void;
  /** Called with the batches of a request that are acknowledged, as soon as they are */
  readonly onAcknowledged: (batches: readonly RecordBatch[]) => void;
  /** Nothing is reported after it */
  readonly signal: AbortSignal;
}

/** A request that waits for its answer. */
interface PendingRequest {
  readonly leader: number;
  readonly batches: readonly RecordBatch[];
  /** Ends the wait for the answer */
  readonly leave: () => void;
}

/** Broker id of the leader of a batch's partition, -1 while there is none. */
export function leaderOf({ metadata }: Pick<Cluster, 'metadata'>, { topic, partition }: RecordBatch): number {
  return metadata.topics.get(topic)?.leaders[partition] ?? -1;
}

/**
 * Sends the batches and returns those that were not acknowledged. Does not reject.
 *
 * While an answer is late, the metadata is read again: a frozen leader holds its batches no longer than until another broker
 * leads one of its partitions. They go to the new leader as they are, and a copy that the former leader still takes is either
 * the same batch, known by its sequence, or truncated when that broker follows the new leader.
 */
export async function attemptRound(
  batches: readonly RecordBatch[],
  options: AttemptOptions,
): Promise<Map<RecordBatch, SendFailure>> {
  const { cluster, signal } = options;
  const failures = new Map<RecordBatch, SendFailure>();
  const pending = new Set<PendingRequest>();
  const byLeader = Map.groupBy(batches, (batch) => leaderOf(cluster, batch));
  const requests = Array.from(byLeader, async ([leader, leaderBatches]) => {
    const judge = await send(leader, leaderBatches, pending, options);
    if (signal.aborted) return;
    const judged = leaderBatches.map((batch) => [batch, judge(batch)] as const);
    for (const [batch, failure] of judged) if (failure !== undefined) failures.set(batch, { failure, sentTo: leader });
    options.onAcknowledged(judged.flatMap(([batch, failure]) => (failure === undefined ? [batch] : [])));
  });
  const late = setInterval(() => leaveFormerLeaders(pending, options), LATE_MS).unref();
  await Promise.all(requests);
  clearInterval(late);
  return failures;
}

/** Returns the outcome by batch; undefined = acknowledged. Does not reject. */
async function send(
  leader: number,
  batches: readonly RecordBatch[],
  pending: Set<PendingRequest>,
  { cluster, requestTimeoutMs, onAnswer, signal }: AttemptOptions,
): Promise<(batch: RecordBatch) => ProduceFailure | undefined> {
  if (leader < 0) return ({ topic }) => judgeLeaderless(cluster.metadata.topics.get(topic)?.errorCode);
  const left = Promise.withResolvers<undefined>();
  const request: PendingRequest = { leader, batches, leave: () => left.resolve(undefined) };
  const startMs = performance.now();
  pending.add(request);
  let answer: ProduceResponse | undefined;
  try {
    const asked = cluster.produce(leader, (isFlexible) =>
      encodeProduceRequest(batches, { timeoutMs: requestTimeoutMs, isFlexible }),
    );
    answer = await Promise.race([asked, left.promise]);
  } catch (error) {
    const failure = judgeSendError(error);
    return () => failure;
  } finally {
    pending.delete(request);
  }
  if (answer === undefined) return () => FORMER_LEADER_SILENT;
  const { throttleTimeMs } = answer;
  if (!signal.aborted) onAnswer({ roundTripMs: performance.now() - startMs, batches, throttleTimeMs });
  const codes = errorCodesByBatch(batches, answer);
  return (batch) => judgeAnswer(codes.get(batch));
}

/** Ends the wait for brokers that lead some partition of their request no more. */
async function leaveFormerLeaders(
  pending: ReadonlySet<PendingRequest>,
  { cluster, refreshMetadata, signal }: AttemptOptions,
): Promise<void> {
  await refreshMetadata();
  if (signal.aborted) return;
  for (const { leader, batches, leave } of pending) {
    const hasMoved = batches.some((batch) => {
      const current = leaderOf(cluster, batch);
      return current >= 0 && current !== leader;
    });
    if (hasMoved) leave();
  }
}
