/**
 * One attempt at following a slot: find the primary, wait for the slot, check and prepare PostgreSQL, connect to Kafka,
 * stream, and close both sides. Everything is opened anew, so that nothing half-broken survives; what ended the attempt
 * is raised.
 */

import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { Config, DatabaseEndpoint, StreamConfig } from '../config/config.ts';
import { isSettledWithin, rejectLater, rejectOnAbort } from '../deadline.ts';
import { SourceError } from '../errors.ts';
import { type EndReason, Flow } from '../flow/flow.ts';
import { inFlightBudgetBytes } from '../flow/in-flight-budget.ts';
import { Progress } from '../flow/progress.ts';
import { Sinks } from '../flow/sinks.ts';
import { formatLsn } from '../lsn.ts';
import { findPrimary, watchPrimary } from '../postgres/availability/primary.ts';
import { watchShutdown } from '../postgres/availability/server-shutdown.ts';
import { waitUntilFree } from '../postgres/availability/slot-holder.ts';
import { connectControl } from '../postgres/client/connect.ts';
import { SQL_STATE, sqlStateOf } from '../postgres/client/errors.ts';
import { wallClockMs } from '../postgres/replication/clock.ts';
import { livenessTimings } from '../postgres/replication/liveness.ts';
import { advanceSlot } from '../postgres/setup/create-slot.ts';
import { type PreparedSlot, prepareSlot } from '../postgres/setup/prepare-slot.ts';
import { planStreaming, type StreamingPlan } from '../postgres/setup/streaming-plan.ts';
import type { SlotStatus } from '../status/slot-status.ts';
import { LedgerKeeper } from './ledger-keeper.ts';
import { forgetPublication, notePublication, type SlotMemory } from './memory.ts';
import { takeInYoungerPublications } from './publications.ts';
import { streamSlot } from './stop.ts';

/** Every wait of the preparation has a bound of its own, which is shorter: this is for a server that does not answer */
const PREPARE_TIMEOUT_MS = 120_000;

/** Batches that wait or are in flight, with the room that they were given to grow */
const BUFFERS_PER_BUDGET = 4;

/** A ledger that is not closed is no mistake, only less exact: a server that is about to go is not waited for */
const CLOSE_LEDGER_TIMEOUT_MS = 2_000;

/** Which slot to follow, with what, and what came before. */
export interface SessionOptions {
  readonly config: Config;
  readonly stream: StreamConfig;
  /** Of this process, by which the slot's ledger tells it from others */
  readonly instance: string;
  /** True for any slot of the configuration, so that a forgotten one can be told apart */
  readonly isConfiguredSlot: (slot: string) => boolean;
  readonly memory: SlotMemory;
  readonly status: SlotStatus;
  /** How often the slot was begun again before, and why this time, for the log */
  readonly reconnectCount: number;
  readonly reconnectReason: string | undefined;
  readonly log: Logger;
}

/** `stopped`: the signal ended it in good order. Any other: another session is wanted at once. */
export type SessionOutcome = 'stopped' | EndReason;

/** Everything that one session has opened. */
export interface Session {
  readonly options: SessionOptions;
  readonly endpoint: DatabaseEndpoint;
  readonly control: Sql;
  readonly prepared: PreparedSlot;
  readonly plan: StreamingPlan;
  readonly progress: Progress;
  readonly ledger: LedgerKeeper;
  readonly flow: Flow;
  readonly sinks: Sinks;
  /** Rejects when the service is asked to stop */
  readonly untilStopped: Promise<never>;
  readonly stopSignal: AbortSignal;
  /** Given at the end of the session: whatever still waits then must not keep it alive */
  readonly ended: AbortSignal;
}

/**
 * Runs until the signal, a point at which another session has to begin, or an error.
 * @throws NotifierError, and whatever driver and library raise
 */
export async function runSession(options: SessionOptions, stopSignal: AbortSignal): Promise<SessionOutcome> {
  const { stream, memory, status, log } = options;
  const { slot } = stream;
  const ended = new AbortController();
  await using cleanup = new AsyncDisposableStack();
  let controlSocket: Socket | undefined;
  cleanup.defer(() => {
    ended.abort();
    controlSocket?.destroy();
  });
  const untilStopped = rejectOnAbort(stopSignal, ended.signal);
  const applicationName = `cdc-notifier ${slot} control`;
  const search = { applicationName, log, signal: ended.signal };
  const endpoint = await Promise.race([findPrimary(stream.database, search), untilStopped]);
  const control = connectControl(endpoint, {
    applicationName,
    log,
    onSocket: (socket) => {
      // Whatever still asks when the session is over must not open a connection that nobody closes.
      if (ended.signal.aborted) {
        socket.destroy();
        throw new SourceError('Cannot query: the session is over');
      }
      controlSocket = socket;
    },
  });

  const untilMoved = forever(watchPrimary(stream.database, { ...search, followed: endpoint }));
  await Promise.race([takeSlot(control, options, ended.signal), untilMoved, untilStopped]);
  // From here on the server may not be kept from shutting down.
  const untilShutdown = forever(watchShutdown({ control, socket: () => controlSocket, signal: ended.signal }));
  const prepared = await Promise.race([
    prepare(control, { options, endpoint, stopSignal }),
    untilShutdown,
    untilStopped,
    rejectLater('prepare the slot', PREPARE_TIMEOUT_MS, ended.signal),
  ]);
  const { confirmedFlushLsn } = prepared;
  const progress = new Progress(confirmedFlushLsn, (commitTimeMicros) =>
    status.commitAcknowledge.observe((Date.now() - wallClockMs(commitTimeMicros)) / 1000),
  );
  const ledger = new LedgerKeeper({
    control,
    databaseRef: stream.databaseRef,
    slot,
    prepared,
    progress,
    memory,
    log,
  });

  const plan = planStreaming(prepared.publications, confirmedFlushLsn, memory.probedBoundaries);
  if (plan.streamed.length === 0) {
    // Nothing of the backlog before the first publication is owed to anybody.
    const { lsn } = plan.boundaries[0]!;
    progress.keepalive(lsn);
    // First: were the answer lost, the slot would seem to have been moved by somebody else.
    ledger.remember();
    log.info({ lsn: formatLsn(lsn) }, 'advancing the slot to where the first of its publications begins');
    await Promise.race([ledger.open().then(() => advanceSlot(control, slot, lsn)), untilShutdown, untilStopped]);
    return 'publication boundary';
  }
  const flow = new Flow({
    databaseRef: stream.databaseRef,
    slot,
    namespaces: new Set(stream.namespaces.keys()),
    plan,
    timings: livenessTimings(prepared.walSenderTimeoutMs),
    inFlightBudgetBytes: inFlightBudgetBytes(options.config.streams.length),
    currentLsn: prepared.currentLsn,
    progress,
    memory,
    status,
    log,
  });
  const sinks = await Promise.race([openSinks(options, flow), untilStopped]);
  cleanup.defer(() => sinks.close());

  Promise.race([untilShutdown, untilMoved]).catch((error) => flow.fail(error));
  const session: Session = {
    options,
    endpoint,
    control,
    prepared,
    plan,
    progress,
    ledger,
    flow,
    sinks,
    untilStopped,
    stopSignal,
    ended: ended.signal,
  };
  try {
    return await streamSlot(session);
  } catch (error) {
    // A publication that the decoding server cannot find; PostgreSQL 18 warns instead, see Flow.
    if (sqlStateOf(error) !== SQL_STATE.undefinedObject) throw error;
    await Promise.race([takeInYoungerPublications(session, error), untilStopped]);
    return 'publication boundary';
  } finally {
    ledger.remember();
    await isSettledWithin(CLOSE_LEDGER_TIMEOUT_MS, ledger.close()).catch(() => {});
  }
}

/** A watch that is only of interest when it fails, which others may not be there to see yet. */
function forever(watch: Promise<void>): Promise<never> {
  const failure = watch.then(() => new Promise<never>(() => {}));
  failure.catch(() => {});
  return failure;
}

/** Returns when nobody streams from the slot: while another process does, this one stands by. */
async function takeSlot(control: Sql, options: SessionOptions, ended: AbortSignal): Promise<void> {
  const { status, log } = options;
  await waitUntilFree(control, {
    slot: options.stream.slot,
    signal: ended,
    onHolder: (holder) => {
      if (holder.pid !== status.holder?.pid) log.info(holder, 'another process streams from the slot, standing by');
      status.holder = holder;
      status.enter('standby');
    },
  });
  status.holder = undefined;
  if (status.state !== 'standby') return;
  log.info('the slot was released, taking over');
  status.enter('starting');
}

async function prepare(
  control: Sql,
  { options, endpoint, stopSignal }: { options: SessionOptions; endpoint: DatabaseEndpoint; stopSignal: AbortSignal },
): Promise<PreparedSlot> {
  const { stream, instance, memory, status, log } = options;
  const prepared = await prepareSlot(control, {
    databaseRef: stream.databaseRef,
    endpoint,
    slot: stream.slot,
    settings: stream.settings,
    namespaces: [...stream.namespaces.keys()],
    publishing: stream.namespaces,
    remembered: memory.known,
    isLedgerRefused: memory.isLedgerRefused,
    instance,
    isConfiguredSlot: (name) => options.isConfiguredSlot(name) || memory.warnedSlots.has(name),
    onAbandonedSlot: (name) => memory.warnedSlots.add(name),
    onSlotSeen: (slot) => {
      status.server = slot;
    },
    log,
    signal: stopSignal,
  });
  for (const name of prepared.renewedPublications) forgetPublication(memory, name);
  for (const { name } of prepared.publications) notePublication(memory, name, prepared.currentLsn);
  return prepared;
}

async function openSinks(options: SessionOptions, flow: Flow): Promise<Sinks> {
  const { stream, config, memory, status, log } = options;
  return await Sinks.open({
    namespaces: stream.namespaces,
    kafkaClients: config.kafkaClients,
    counts: status.namespaces,
    keptBufferBytes: BUFFERS_PER_BUDGET * inFlightBudgetBytes(config.streams.length),
    resendTimeoutMs: config.resendTimeoutMs,
    maxRetries: config.maxRetries,
    topicLimits: memory.topicLimits,
    log,
    onAcknowledged: flow.onAcknowledged,
    onResend: (reason) => status.noteResend(reason),
    onProduced: ({ roundTripMs, batchCount, bytes }) => {
      status.produceRoundTrip.observe(roundTripMs / 1000);
      status.producedBatchCount += batchCount;
      status.producedBytes += bytes;
    },
    onTopicChanged: (change) => {
      log.warn(change, 'a topic has other partitions: after the present transaction its records go by the new count');
      flow.endAtCommit('changed topic');
    },
    onFailed: (error) => flow.fail(error),
  });
}
