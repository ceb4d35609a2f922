/**
 * The replication connection of a session: opened, followed to its end, and closed so that what Kafka acknowledged is
 * confirmed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { aborted, isSettledWithin, rejectLater } from '../deadline.ts';
import { InvalidRowError, SourceError } from '../errors.ts';
import { formatLsn } from '../lsn.ts';
import { readSlotPosition } from '../postgres/catalog/slots.ts';
import { SQL_STATE, sqlStateOf } from '../postgres/client/errors.ts';
import { ReplicationStream } from '../postgres/replication/stream.ts';
import type { Session, SessionOutcome } from './session.ts';
import { watchSlot } from './watch.ts';

/** How long the server may take for its CopyDone; in the middle of a large transaction it does not look at ours */
const COPY_DONE_TIMEOUT_MS = 5_000;
/** Two waits of 10 s for a connection are part of it */
const START_TIMEOUT_MS = 45_000;
const VERIFY_TIMEOUT_MS = 2_000;
const VERIFY_INTERVAL_MS = 20;

/** Streams until the signal, a point at which another session has to begin, or an error. */
export async function streamSlot(session: Session): Promise<SessionOutcome> {
  const { options, flow, progress, sinks, ledger, stopSignal } = session;
  const { log, config, status } = options;
  await using cleanup = new AsyncDisposableStack();
  const { replication, closed } = await openReplication(session, cleanup);
  // The slot is ours from here on, and nothing is confirmed yet.
  await Promise.race([
    ledger.open(),
    session.untilStopped,
    rejectLater("write the slot's ledger", START_TIMEOUT_MS, session.ended),
  ]);
  status.stream = flow;
  flow.start(replication, sinks);
  status.enter('streaming');
  logStart(session);
  void closed.then((error) => flow.fail(error ?? new SourceError('The server ended the replication')));
  void watchSlot(session);

  /** Ends the replication so that the last confirmation arrives: a dropped connection may take it along. */
  const finish = async () => {
    flow.finish();
    await isSettledWithin(COPY_DONE_TIMEOUT_MS, closed);
    replication.destroy();
    await verifyConfirmed(session);
  };
  try {
    const reason = await Promise.race([flow.outcome, aborted(stopSignal, session.ended)]);
    if (stopSignal.aborted) await settleInFlight(session);
    await finish();
    const facts = { confirmedLsn: formatLsn(progress.flushed), recordCount: sinks.acknowledgedRecordCount };
    if (reason !== undefined && !stopSignal.aborted) {
      log.info({ ...facts, reason }, 'replication goes on in a new session');
      return reason;
    }
    log.info(facts, 'replication stopped');
    return 'stopped';
  } catch (error) {
    if (error instanceof InvalidRowError) await finish();
    // What was received with a publication may be streamed without it next time: it has to be delivered before.
    if (sqlStateOf(error) === SQL_STATE.undefinedObject)
      await deliverReceived(session, config.shutdownTimeoutMs, error);
    throw error;
  }
}

/** Connects and takes the slot; what ends the session ends the wait. */
async function openReplication(session: Session, cleanup: AsyncDisposableStack) {
  const { options, endpoint, prepared, plan, flow } = session;
  const closed = Promise.withResolvers<Error | undefined>();
  const opening = ReplicationStream.open(endpoint, {
    slot: options.stream.slot,
    publications: plan.streamed,
    systemIdentifier: prepared.systemIdentifier,
    timeline: prepared.timeline,
    signal: session.ended,
    onChunk: flow.onChunk,
    onNotice: flow.onNotice,
    onClosed: closed.resolve,
    log: options.log,
  });
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
  return { replication, closed: closed.promise };
}

function logStart({ options, prepared, plan }: Session): void {
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

/** Waits for what was received before a stream failed. @throws the failure as one that is no more to be looked into */
async function deliverReceived({ flow }: Session, timeoutMs: number, cause: unknown): Promise<void> {
  if (await isSettledWithin(timeoutMs, flow.drain())) return;
  throw new SourceError('Cannot look for a publication before kafka has acknowledged what was received', { cause });
}

/** Waits for what Kafka has not acknowledged yet, but not for ever: it is sent again by the next start. */
async function settleInFlight({ flow, options }: Session): Promise<void> {
  const { shutdownTimeoutMs } = options.config;
  if (await isSettledWithin(shutdownTimeoutMs, Promise.race([flow.drain(), flow.outcome]))) return;
  options.log.warn(
    { shutdownTimeoutMs },
    'kafka has not acknowledged everything in time, the rest is sent again at the next start',
  );
}

/** Asks the server where the slot stands, rather than to believe that the last status was read. */
async function verifyConfirmed({ control, progress, options }: Session): Promise<void> {
  const { log, stream } = options;
  const timeout = sleep(VERIFY_TIMEOUT_MS, 'timeout' as const, { ref: false });
  try {
    for (;;) {
      // A server that does not answer at all must not hold up the stop.
      const position = await Promise.race([readSlotPosition(control, stream.slot), timeout]);
      if (position === 'timeout') break;
      if (position !== undefined && !position.active && position.confirmedFlushLsn >= progress.flushed) return;
      if ((await Promise.race([sleep(VERIFY_INTERVAL_MS), timeout])) === 'timeout') break;
    }
    log.warn(
      { confirmedLsn: formatLsn(progress.flushed) },
      'the server has not noted the last confirmation, some transactions will be sent again',
    );
  } catch (error) {
    log.warn({ error }, 'the last confirmation could not be verified');
  }
}
