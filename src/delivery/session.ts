/**
 * One attempt at following a slot: check and prepare PostgreSQL, connect to Kafka, stream, and close both sides.
 * Everything is opened anew, so that nothing half-broken survives; what ended the attempt is raised.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { Config, StreamConfig } from '../config/config.ts';
import { InvalidRowError, SourceError } from '../errors.ts';
import { findBoundary } from '../postgres/boundary.ts';
import { connectControl } from '../postgres/connect.ts';
import { droppedPublicationError, readSlotPosition, refuseVanished } from '../postgres/continuity.ts';
import { livenessTimings } from '../postgres/liveness.ts';
import { formatLsn, type Lsn } from '../postgres/lsn.ts';
import { ReplicationStream } from '../postgres/replication-stream.ts';
import { type PreparedSlot, prepareSlot } from '../postgres/setup.ts';
import { watchShutdown } from '../postgres/shutdown-watch.ts';
import { advanceSlot } from '../postgres/slot.ts';
import { SQL_STATE, sqlStateOf } from '../postgres/sql-state.ts';
import { Flow, lsnInContext } from './flow.ts';
import { Progress } from './progress.ts';
import { Sinks } from './sinks.ts';
import { notePublication, type SlotMemory } from './slot-memory.ts';
import { judgeMissingPublication, planStreaming, type StreamingPlan } from './streaming-plan.ts';

/** How long the server may take for its CopyDone; in the middle of a large transaction it does not look at ours */
const COPY_DONE_TIMEOUT_MS = 5_000;
/** Every wait of the preparation has a bound of its own, which is shorter: this is for a server that does not answer */
const PREPARE_TIMEOUT_MS = 120_000;
/** Two waits of 10 s for a connection are part of it */
const START_TIMEOUT_MS = 45_000;
const VERIFY_TIMEOUT_MS = 2_000;
const VERIFY_INTERVAL_MS = 20;

/** Which slot to follow, with what, and what came before. */
export interface SessionOptions {
  readonly config: Config;
  readonly stream: StreamConfig;
  /** True for any slot of the configuration, so that a forgotten one can be told apart */
  readonly isConfiguredSlot: (slot: string) => boolean;
  readonly memory: SlotMemory;
  /** How often the slot was begun again before, and why this time, for the log */
  readonly reconnectCount: number;
  readonly reconnectReason: string | undefined;
  readonly log: Logger;
}

/** `stopped`: the signal ended it in good order. `next`: another session is wanted at once. */
export type SessionOutcome = 'stopped' | 'next';

/**
 * Runs until the signal, a boundary of the publication plan, or an error.
 * @throws NotifierError, and whatever driver and library raise
 */
export async function runSession(options: SessionOptions, stopSignal: AbortSignal): Promise<SessionOutcome> {
  const { stream, config, memory, log } = options;
  const { slot } = stream;
  const ended = new AbortController();
  await using cleanup = new AsyncDisposableStack();
  let controlSocket: Socket | undefined;
  const control = connectControl(stream.database, {
    applicationName: `cdc-notifier ${slot} control`,
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
  cleanup.defer(() => {
    ended.abort();
    controlSocket?.destroy();
  });

  const untilStopped = rejectOnAbort(stopSignal, ended.signal);
  const prepare = async () => {
    await refuseVanished(control, { ...memory, slot });
    return await prepareSlot(control, {
      databaseRef: stream.databaseRef,
      slot,
      namespaces: [...stream.namespaces.keys()],
      isConfiguredSlot: (name) => options.isConfiguredSlot(name) || memory.warnedSlots.has(name),
      onAbandonedSlot: (name) => memory.warnedSlots.add(name),
      log,
      signal: stopSignal,
    });
  };
  const prepared = await Promise.race([
    prepare(),
    untilStopped,
    rejectLater('prepare the slot', PREPARE_TIMEOUT_MS, ended.signal),
  ]);
  warnOfForeignMove(memory, prepared, log);
  memory.confirmedLsn = prepared.confirmedFlushLsn;
  for (const { name, oid } of prepared.publications) {
    memory.publicationOids.set(name, oid);
    notePublication(memory, name, prepared.currentLsn);
  }

  const plan = planStreaming(prepared.publications, prepared.confirmedFlushLsn, memory.probedBoundaries);
  if (plan.streamed.length === 0) {
    // Nothing of the backlog before the first publication is owed to anybody.
    const { lsn } = plan.boundaries[0]!;
    await Promise.race([advanceSlot(control, slot, lsn), untilStopped]);
    memory.confirmedLsn = lsn;
    return 'next';
  }
  const progress = new Progress(prepared.confirmedFlushLsn);
  const flow = new Flow({
    databaseRef: stream.databaseRef,
    slot,
    namespaces: new Set(stream.namespaces.keys()),
    plan,
    timings: livenessTimings(prepared.walSenderTimeoutMs),
    progress,
    memory,
    log,
  });
  const sinks = await Promise.race([
    Sinks.open({
      namespaces: stream.namespaces,
      kafkaClients: config.kafkaClients,
      resendTimeoutMs: config.resendTimeoutMs,
      maxRetries: config.maxRetries,
      learnedBatchBytes: memory.learnedBatchBytes,
      log,
      onAcknowledged: flow.onAcknowledged,
      onFailed: (error) => flow.fail(error),
    }),
    untilStopped,
  ]);
  cleanup.defer(() => sinks.close());

  const shutdown = watchShutdown({ control, socket: () => controlSocket, signal: ended.signal });
  shutdown.catch((error) => flow.fail(error));
  const session = {
    options,
    control,
    prepared,
    plan,
    progress,
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
    await Promise.race([probeBoundaries(session, error), untilStopped]);
    return 'next';
  } finally {
    memory.confirmedLsn = progress.flushed;
  }
}

/** Everything that one session has opened. */
interface Session {
  readonly options: SessionOptions;
  readonly control: Sql;
  readonly prepared: PreparedSlot;
  readonly plan: StreamingPlan;
  readonly progress: Progress;
  readonly flow: Flow;
  readonly sinks: Sinks;
  /** Rejects when the service is asked to stop */
  readonly untilStopped: Promise<never>;
  readonly stopSignal: AbortSignal;
  /** Given at the end of the session: whatever still waits then must not keep it alive */
  readonly ended: AbortSignal;
}

/** Streams until the signal, a boundary, or an error, and closes the replication connection. */
async function streamSlot(session: Session): Promise<SessionOutcome> {
  const { options, control, prepared, plan, progress, flow, sinks, stopSignal } = session;
  const { log, config } = options;
  const { slot, database } = options.stream;
  const closed = Promise.withResolvers<Error | undefined>();
  const opening = ReplicationStream.open(database, {
    slot,
    publications: plan.streamed,
    systemIdentifier: prepared.systemIdentifier,
    timeline: prepared.timeline,
    signal: session.ended,
    onChunk: flow.onChunk,
    onNotice: flow.onNotice,
    onClosed: closed.resolve,
    log,
  });
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => {
    flow.stop();
    // Also one that is opened when nobody waits for it any more.
    opening.then((opened) => opened.destroy()).catch(() => {});
  });
  const replication = await Promise.race([
    opening,
    session.untilStopped,
    // The server may shut down meanwhile, or Kafka fail.
    flow.outcome.then(() => opening),
    rejectLater('start replication', START_TIMEOUT_MS, session.ended),
  ]);
  flow.start(replication, sinks);
  logStart(options, prepared, plan);
  void closed.promise.then((error) => flow.fail(error ?? new SourceError('The server ended the replication')));

  /** Ends the replication so that the last confirmation arrives: a dropped connection may take it along. */
  const finish = async () => {
    flow.finish();
    await isSettledWithin(COPY_DONE_TIMEOUT_MS, closed.promise);
    replication.destroy();
    await verifyConfirmed(control, { slot, flushed: progress.flushed, log });
  };
  try {
    await Promise.race([flow.outcome, aborted(stopSignal, session.ended)]);
    if (stopSignal.aborted) await settleInFlight(flow, config.shutdownTimeoutMs, log);
  } catch (error) {
    if (error instanceof InvalidRowError) await finish();
    // What was received with a publication may be streamed without it next time: it has to be delivered before.
    if (sqlStateOf(error) === SQL_STATE.undefinedObject) await deliverReceived(flow, config.shutdownTimeoutMs, error);
    throw error;
  }
  await finish();
  const outcome = stopSignal.aborted ? 'stopped' : 'next';
  const facts = { confirmedLsn: formatLsn(progress.flushed), recordCount: sinks.acknowledgedRecordCount };
  if (outcome === 'stopped') log.info(facts, 'replication stopped');
  else log.info(facts, 'replication goes on with a publication that could not be read before');
  return outcome;
}

function logStart(options: SessionOptions, prepared: PreparedSlot, plan: StreamingPlan): void {
  options.log.info(
    {
      fromLsn: formatLsn(prepared.confirmedFlushLsn),
      publications: plan.streamed,
      laterPublications: plan.boundaries.map((boundary) => boundary.publication),
      reconnectCount: options.reconnectCount,
      reconnectReason: options.reconnectReason,
      serverMajor: prepared.serverMajor,
      walSenderTimeoutMs: prepared.walSenderTimeoutMs,
    },
    'replication started',
  );
}

/**
 * Another instance that streamed meanwhile has moved the slot rightly. A slot that was dropped and made anew under the
 * same name looks the same, and hides a gap.
 */
function warnOfForeignMove(memory: SlotMemory, prepared: PreparedSlot, log: Logger): void {
  if (memory.confirmedLsn === undefined || prepared.confirmedFlushLsn <= memory.confirmedLsn) return;
  log.warn(
    { ourLsn: formatLsn(memory.confirmedLsn), slotLsn: formatLsn(prepared.confirmedFlushLsn) },
    'the slot was moved or made anew by somebody else: what was committed in between was not delivered by this process',
  );
}

/** Waits for what was received before a stream failed. @throws the failure as one that is no more to be looked into */
async function deliverReceived(flow: Flow, timeoutMs: number, cause: unknown): Promise<void> {
  if (await isSettledWithin(timeoutMs, flow.drain())) return;
  throw new SourceError('Cannot look for a publication before kafka has acknowledged what was received', { cause });
}

/** Waits for what Kafka has not acknowledged yet, but not for ever: it is sent again by the next start. */
async function settleInFlight(flow: Flow, shutdownTimeoutMs: number, log: Logger): Promise<void> {
  if (await isSettledWithin(shutdownTimeoutMs, Promise.race([flow.drain(), flow.outcome]))) return;
  log.warn(
    { shutdownTimeoutMs },
    'kafka has not acknowledged everything in time, the rest is sent again at the next start',
  );
}

/** True when the promise resolves within the time, false when the time is over before. @throws what it rejects with */
async function isSettledWithin(timeoutMs: number, promise: Promise<unknown>): Promise<boolean> {
  return await Promise.race([promise.then(() => true), sleep(timeoutMs, false, { ref: false })]);
}

/** Asks the server where the slot stands, rather than to believe that the last status was read. */
async function verifyConfirmed(
  control: Sql,
  expected: { readonly slot: string; readonly flushed: Lsn; readonly log: Logger },
): Promise<void> {
  const timeout = sleep(VERIFY_TIMEOUT_MS, 'timeout' as const, { ref: false });
  try {
    for (;;) {
      // A server that does not answer at all must not hold up the stop.
      const position = await Promise.race([readSlotPosition(control, expected.slot), timeout]);
      if (position === 'timeout') break;
      if (position !== undefined && !position.active && position.confirmedFlushLsn >= expected.flushed) return;
      if ((await Promise.race([sleep(VERIFY_INTERVAL_MS), timeout])) === 'timeout') break;
    }
    expected.log.warn(
      { confirmedLsn: formatLsn(expected.flushed) },
      'the server has not noted the last confirmation, some transactions will be sent again',
    );
  } catch (error) {
    expected.log.warn({ error }, 'the last confirmation could not be verified');
  }
}

/**
 * The server could not load a publication for a change. Either the change is older than the publication: then the place
 * where the publication begins is looked for, with a copy of the slot. Or somebody dropped it.
 */
async function probeBoundaries(session: Session, error: unknown): Promise<void> {
  const { options, control, plan, progress, stopSignal: signal } = session;
  const { memory, log, stream } = options;
  const confirmedLsn = progress.flushed;
  const where = error instanceof Error && 'where' in error ? String(error.where) : undefined;
  const changeLsn = lsnInContext(where);
  let found = false;
  for (const name of plan.streamed) {
    const existedAtLsn = memory.publicationExistedAt.get(name);
    if (judgeMissingPublication({ changeLsn, existedAtLsn }) === 'dropped') continue;
    const lsn = await findBoundary(control, {
      databaseRef: stream.databaseRef,
      slot: stream.slot,
      publication: name,
      confirmedFlushLsn: confirmedLsn,
      log,
      signal,
    });
    if (lsn <= confirmedLsn) continue;
    memory.probedBoundaries.set(name, lsn);
    found = true;
    log.info(
      { publication: name, lsn: formatLsn(lsn) },
      'the publication is younger than the backlog, it is taken in later',
    );
  }
  if (found) return;
  await refuseVanished(control, { slot: stream.slot, confirmedLsn, publicationOids: memory.publicationOids });
  throw droppedPublicationError(plan.streamed.join('", "'), confirmedLsn);
}

/** Rejects when the signal is given. What it is raced against goes on unobserved: the process is about to end. */
function rejectOnAbort(signal: AbortSignal, ended: AbortSignal): Promise<never> {
  const rejection = aborted(signal, ended).then(() => {
    throw signal.reason;
  });
  rejection.catch(() => {});
  return rejection;
}

/** Rejects when the time is over, unless the signal says that nobody waits any more. */
async function rejectLater(action: string, timeoutMs: number, signal: AbortSignal): Promise<never> {
  await sleep(timeoutMs, undefined, { signal }).catch(() => new Promise<never>(() => {}));
  throw new SourceError(`Cannot ${action}: no answer of the server within ${timeoutMs} ms`);
}

/** Resolves when the signal is given. The listener goes with the session, or the process would keep every one of them. */
function aborted(signal: AbortSignal, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true, signal: ended });
  });
}
