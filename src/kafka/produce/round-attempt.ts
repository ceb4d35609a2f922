/** One attempt of a round: the requests to all leaders at once, and what became of each batch. */
import type { ProduceResponse } from '../client/api-versions.ts';
import type { Cluster } from '../client/cluster.ts';
import { isConnectionLost } from '../client/errors.ts';
import {
  learnRequestLimit,
  maySizeBeRefused,
  noteTakenRequest,
  type RequestLimit,
  sharedRequestBytes,
} from '../client/request-limit.ts';
import {
  FORMER_LEADER_SILENT,
  judgeAnswer,
  judgeLeaderless,
  judgeSendError,
  type ProduceFailure,
  REQUEST_TOO_LARGE,
} from './produce-errors.ts';
import { divideIntoRequests, encodeProduceRequest, errorCodesByBatch, requestBytesOf } from './produce-request.ts';
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

/** Options of `RoundAttempt`. */
export interface AttemptOptions {
  readonly cluster: Pick<Cluster, 'metadata' | 'produce' | 'takesRequestOf'>;
  /** Of the cluster's requests; what is learned is added */
  readonly limit: RequestLimit;
  readonly requestTimeoutMs: number;
  /** Reads the metadata of the cluster again; never rejects */
  readonly refreshMetadata: () => Promise<void>;
  readonly onAnswer: (answer: LeaderAnswer) => void;
  /** Called with the batches of a request that are acknowledged, as soon as they are */
  readonly onAcknowledged: (batches: readonly RecordBatch[]) => void;
  /** The brokers do not take requests of this size: `limit` has changed */
  readonly onLimitLearned: (requestBytes: number) => void;
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
 * Sends the batches of a round once, each with the leader of its partition, in requests that the brokers take.
 *
 * While an answer is late, the metadata is read again: a frozen leader holds its batches no longer than until another broker
 * leads one of its partitions. They go to the new leader as they are, and a copy that the former leader still takes is either
 * the same batch, known by its sequence, or truncated when that broker follows the new leader.
 *
 * When a broker closes the connection because a request is too large, its batches follow in smaller requests at once.
 */
export class RoundAttempt {
  readonly #options: AttemptOptions;
  readonly #failures = new Map<RecordBatch, SendFailure>();
  readonly #pending = new Set<PendingRequest>();
  /** One after the other, because a proof that fails takes the connection of all others with it */
  #learning: Promise<unknown> = Promise.resolve();

  constructor(options: AttemptOptions) {
    this.#options = options;
  }

  /** Returns the batches that were not acknowledged. Called once; does not reject. */
  async run(batches: readonly RecordBatch[]): Promise<ReadonlyMap<RecordBatch, SendFailure>> {
    const { cluster } = this.#options;
    const byLeader = Map.groupBy(batches, (batch) => leaderOf(cluster, batch));
    const late = setInterval(() => this.#leaveFormerLeaders(), LATE_MS).unref();
    await Promise.all(Array.from(byLeader, ([leader, leaderBatches]) => this.#sendToLeader(leader, leaderBatches)));
    clearInterval(late);
    return this.#failures;
  }

  async #sendToLeader(leader: number, batches: readonly RecordBatch[]): Promise<void> {
    const { cluster, limit } = this.#options;
    if (leader < 0) {
      this.#settle(leader, batches, ({ topic }) => judgeLeaderless(cluster.metadata.topics.get(topic)?.errorCode));
      return;
    }
    const requests = divideIntoRequests(batches, sharedRequestBytes(limit));
    await Promise.all(requests.map((request) => this.#sendRequest(leader, request)));
  }

  async #sendRequest(leader: number, batches: readonly RecordBatch[]): Promise<void> {
    const { limit, onAnswer, signal } = this.#options;
    const requestBytes = requestBytesOf(batches);
    const startMs = performance.now();
    let answer: ProduceResponse | undefined;
    try {
      answer = await this.#answerTo(leader, batches);
    } catch (error) {
      if (!isConnectionLost(error) || !(await this.#isTooLarge(leader, requestBytes))) {
        const failure = judgeSendError(error);
        this.#settle(leader, batches, () => failure);
      } else if (batches.length > 1) {
        await this.#sendToLeader(leader, batches);
      } else {
        this.#settle(leader, batches, () => REQUEST_TOO_LARGE);
      }
      return;
    }
    if (answer === undefined) {
      this.#settle(leader, batches, () => FORMER_LEADER_SILENT);
      return;
    }
    noteTakenRequest(limit, requestBytes);
    const { throttleTimeMs } = answer;
    if (!signal.aborted) onAnswer({ roundTripMs: performance.now() - startMs, batches, throttleTimeMs });
    const codes = errorCodesByBatch(batches, answer);
    this.#settle(leader, batches, (batch) => judgeAnswer(codes.get(batch)));
  }

  /** Resolves with undefined when the wait is given up. @throws as `Cluster.produce` does */
  async #answerTo(leader: number, batches: readonly RecordBatch[]): Promise<ProduceResponse | undefined> {
    const { cluster, requestTimeoutMs } = this.#options;
    const left = Promise.withResolvers<undefined>();
    const request: PendingRequest = { leader, batches, leave: () => left.resolve(undefined) };
    this.#pending.add(request);
    try {
      const asked = cluster.produce(leader, (isFlexible) =>
        encodeProduceRequest(batches, { timeoutMs: requestTimeoutMs, isFlexible }),
      );
      return await Promise.race([asked, left.promise]);
    } finally {
      this.#pending.delete(request);
    }
  }

  /** @param judge returns the failure of a batch; undefined = acknowledged */
  #settle(
    sentTo: number,
    batches: readonly RecordBatch[],
    judge: (batch: RecordBatch) => ProduceFailure | undefined,
  ): void {
    const { onAcknowledged, signal } = this.#options;
    if (signal.aborted) return;
    const acknowledged: RecordBatch[] = [];
    for (const batch of batches) {
      const failure = judge(batch);
      if (failure === undefined) acknowledged.push(batch);
      else this.#failures.set(batch, { failure, sentTo });
    }
    onAcknowledged(acknowledged);
  }

  /** Finds out whether the size of a request is why the connection was closed. */
  async #isTooLarge(leader: number, requestBytes: number): Promise<boolean> {
    const learning = this.#learning.then(async () => {
      const { cluster, limit, onLimitLearned, signal } = this.#options;
      if (requestBytes >= limit.refusedBytes) return true;
      if (signal.aborted || !maySizeBeRefused(limit, requestBytes)) return false;
      const isLearned = await learnRequestLimit(limit, requestBytes, (bytes) => cluster.takesRequestOf(leader, bytes));
      if (isLearned && !signal.aborted) onLimitLearned(requestBytes);
      return isLearned;
    });
    this.#learning = learning;
    return await learning;
  }

  /** Ends the wait for brokers that lead some partition of their request no more. */
  async #leaveFormerLeaders(): Promise<void> {
    const { cluster, refreshMetadata, signal } = this.#options;
    await refreshMetadata();
    if (signal.aborted) return;
    for (const { leader, batches, leave } of this.#pending) {
      const hasMoved = batches.some((batch) => {
        const current = leaderOf(cluster, batch);
        return current >= 0 && current !== leader;
      });
      if (hasMoved) leave();
    }
  }
}
