import type { Logger } from 'pino';
import type { Config, DatabaseEndpoint, StreamConfig } from '../config/config.ts';
import { aborted, rejectOnAbort, within } from '../deadline.ts';
import { Flow, type FlowEnd, type RenewalReason } from '../flow/flow.ts';
import { inFlightBudgetBytes } from '../flow/in-flight-budget.ts';
import { Progress } from '../flow/progress.ts';
import { defaultMaxRowBytes } from '../flow/row-limit.ts';
import { SinkRehearsal } from '../flow/sink-rehearsal.ts';
import { Sinks } from '../flow/sinks.ts';
import { formatLsn } from '../lsn.ts';
import { keepPresent } from '../postgres/availability/presence.ts';
import { findPrimary, watchPrimary } from '../postgres/availability/primary.ts';
import { watchShutdown } from '../postgres/availability/server-shutdown.ts';
import { isWalsenderAtWork } from '../postgres/availability/slot-holder.ts';
import { connectControl } from '../postgres/client/connect.ts';
import { OwnedConnection } from '../postgres/client/owned-connection.ts';
import { configurationId } from '../postgres/continuity/configuration-order.ts';
import { wallClockMs } from '../postgres/replication/clock.ts';
import { livenessTimings } from '../postgres/replication/liveness.ts';
import { ReplicationStream, replicationEndedError } from '../postgres/replication/stream.ts';
import { advanceSlot } from '../postgres/setup/create-slot.ts';
import { type PreparedSlot, prepareSlot, rehearseSlot, type SetupRequest } from '../postgres/setup/prepare-slot.ts';
import { planStreaming, type StreamingPlan } from '../postgres/setup/streaming-plan.ts';
import type { SlotStatus } from '../status/slot-status.ts';
import { LedgerKeeper } from './ledger-keeper.ts';
import { forgetPublication, notePublication, type SlotMemory } from './memory.ts';
import { findPublicationStarts, isPublicationMissing } from './missing-publication.ts';
import { standBy } from './standby.ts';
import { watchStandbyCopies } from './standby-copies.ts';
import { closeInOrder, StopDeadline, settleInFlight } from './stop.ts';
import { readPrecedence } from './superseded.ts';
import { watchSlot } from './watch.ts';

/** Every wait of the preparation has a shorter bound of its own: this one is for a server that does not answer */
const PREPARE_TIMEOUT_MS = 120_000;

/** For a query on a connection that is open */
const WALSENDER_ANSWER_TIMEOUT_MS = 10_000;

/** Of the preparation: a broker that does not answer is given up sooner */
const KAFKA_CHECK_TIMEOUT_MS = 60_000;

/** Two waits of 10 s for a connection are part of it */
const START_TIMEOUT_MS = 45_000;

/** Batches that wait or are in flight, with their room to grow */
const BUFFERS_PER_BUDGET = 4;

/** An unclosed ledger is no mistake, only less exact: a session does not wait longer for a server that stops */
const CLOSE_LEDGER_TIMEOUT_MS = 2_000;

/** Options of Session. */
export interface SessionOptions {
  readonly config: Config;
  readonly stream: StreamConfig;
  /** Id of this process, which tells its ledgers from those of other processes */
  readonly instance: string;
  /** True for any slot of the configuration, so that abandoned slots are recognized */
  readonly isConfiguredSlot: (slot: string) => boolean;
  readonly memory: SlotMemory;
  readonly status: SlotStatus;
  /** How many sessions of the slot came before, and why the last one ended, for the log */
  readonly reconnectCount: number;
  readonly reconnectReason: string | undefined;
  readonly log: Logger;
}

/** `stopped`: the signal ended the session in good order. Any other: another session begins at once. */
export type SessionOutcome = 'stopped' | RenewalReason | 'deliverable namespaces';

/** How the stream of a session ends: as its flow does, or by the stop of the service. */
type StreamEnd = FlowEnd | { readonly kind: 'signal' };

/** The PostgreSQL side of a session once the slot is prepared. */
interface PreparedServer {
  readonly endpoint: DatabaseEndpoint;
  readonly control: OwnedConnection;
  readonly prepared: PreparedSlot;
  readonly plan: StreamingPlan;
  readonly progress: Progress;
  readonly ledger: LedgerKeeper;
}

/**
 * One attempt to follow a slot, in phases: find the server, wait for the slot, prepare it, hold it, open Kafka, stream.
 * Each session opens everything itself, so that no broken connection survives; its disposal closes everything.
 *
 * The slot is held before Kafka is opened: a slot without a walsender can be invalidated, and another process must not
 * believe it free.
 */
export class Session implements AsyncDisposable {
  readonly #options: SessionOptions;
  readonly #stopSignal: AbortSignal;
  readonly #resources = new AsyncDisposableStack();
  readonly #ended = new AbortController();
  /** Rejects when the service is asked to stop */
  readonly #stopped: Promise<never>;
  readonly #stopDeadline: StopDeadline;
  readonly #configuration: string;
  /** Each rejects with a reason to end the session: another primary, a server that shuts down */
  readonly #watches: Promise<never>[] = [];
  /** Why the control connection could not be opened again when that was last tried */
  #controlError: unknown;

  constructor(options: SessionOptions, stopSignal: AbortSignal) {
    this.#options = options;
    this.#stopSignal = stopSignal;
    this.#stopped = rejectOnAbort(stopSignal, this.#ended.signal);
    this.#configuration = configurationId(options.stream.namespaces);
    const { shutdownTimeoutMs } = options.config;
    this.#stopDeadline = new StopDeadline(shutdownTimeoutMs, { stop: stopSignal, ended: this.#ended.signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort();
    await this.#resources.disposeAsync();
  }

  /**
   * Runs until the signal, until another session has to begin, or until an error.
   * @throws NotifierError, and whatever driver and library raise
   */
  async run(): Promise<SessionOutcome> {
    const endpoint = await this.#findServer();
    const control = this.#connectControl(endpoint);
    await this.#waitForSlot(endpoint, control);
    const server = await this.#prepare(endpoint, control);
    if (server.plan.streamed.length === 0) return await this.#advanceToFirstPublication(server);
    try {
      const replication = await this.#holdSlot(server);
      const sinks = await this.#openKafka(replication);
      // Kafka takes records of all namespaces by now.
      if (server.prepared.isPartial) return 'deliverable namespaces';
      return await this.#stream(server, replication, sinks);
    } catch (error) {
      // The server decodes from START_REPLICATION on: this can happen before Kafka is open.
      if (!isPublicationMissing(error)) throw error;
      await this.#findPublicationStarts(server, error);
      return 'publication boundary';
    }
  }

  /** The result of `work`, unless a stop or a watch ends the wait first; `work` then goes on unobserved. */
  async #interruptible<T>(work: Promise<T>): Promise<T> {
    return await Promise.race([work, this.#stopped, ...this.#watches]);
  }

  /** Ends the session when the watch fails. A watch that ends because the session ends changes nothing. */
  #endWhenFailed(watch: Promise<void>): void {
    const failure = watch.then(() => new Promise<never>(() => {}));
    failure.catch(() => {});
    this.#watches.push(failure);
  }

  async #findServer(): Promise<DatabaseEndpoint> {
    return await this.#interruptible(findPrimary(this.#options.stream.database, this.#search));
  }

  get #search() {
    return { applicationName: this.#controlName, log: this.#options.log, signal: this.#ended.signal };
  }

  get #controlName(): string {
    return `cdc-notifier ${this.#options.stream.slot} control`;
  }

  #connectControl(endpoint: DatabaseEndpoint): OwnedConnection {
    const { log } = this.#options;
    return this.#resources.use(
      new OwnedConnection(connectControl, endpoint, { applicationName: this.#controlName, log }),
    );
  }

  /** Stands by while another process streams from the slot. From then on, a shutdown of the server ends the session. */
  async #waitForSlot(endpoint: DatabaseEndpoint, control: OwnedConnection): Promise<void> {
    const { stream, config, status, log } = this.#options;
    const { slot, databaseRef } = stream;
    const signal = this.#ended.signal;
    this.#endWhenFailed(watchPrimary(stream.database, { ...this.#search, followed: endpoint }));
    void keepPresent(control, { slot, configuration: this.#configuration, log, signal });
    using sinks = this.#rehearseSinks();
    // What it finds is in the status, and the warnings of the preparation are for the log of the slot holder.
    const request = { ...this.#setupRequest(endpoint), onSlotSeen: () => {}, log: log.child({}, { level: 'silent' }) };
    const rehearse = async () => {
      await rehearseSlot(control.sql, request);
      await sinks.check();
    };
    const standby = standBy(control.sql, {
      slot,
      place: { database: databaseRef, slot },
      rehearse,
      precedence: () => readPrecedence(control.sql, slot, this.#configuration),
      reconnectTimeoutMs: config.reconnectTimeoutMs,
      status,
      log,
      signal,
    });
    await this.#interruptible(standby);
    const onRefused = (error: unknown) => {
      this.#controlError = error;
    };
    const { reconnectTimeoutMs } = config;
    this.#endWhenFailed(watchShutdown(control, { reconnectTimeoutMs, onRefused, signal }));
  }

  #rehearseSinks(): SinkRehearsal {
    const { stream, config, log } = this.#options;
    return new SinkRehearsal({ namespaces: stream.namespaces, kafkaClients: config.kafkaClients, log });
  }

  async #whyUndeliverable(): Promise<Error | undefined> {
    // Its connections end with the session as well, which a stop ends at once.
    const sinks = this.#resources.use(this.#rehearseSinks());
    const check = within(KAFKA_CHECK_TIMEOUT_MS, 'check Kafka', sinks.check());
    const reason = await check.then(
      () => undefined,
      (error: Error) => error,
    );
    sinks[Symbol.dispose]();
    return reason;
  }

  #setupRequest(endpoint: DatabaseEndpoint): SetupRequest {
    const { stream, instance, memory, status, log } = this.#options;
    const { slot, databaseRef } = stream;
    return {
      databaseRef,
      endpoint,
      slot,
      settings: stream.settings,
      namespaces: [...stream.namespaces.keys()],
      publishing: stream.namespaces,
      remembered: memory.remembered,
      isLedgerRefused: memory.isLedgerRefused,
      instance,
      configuration: this.#configuration,
      isConfiguredSlot: this.#options.isConfiguredSlot,
      warnedSlots: memory.warnedSlots,
      onSlotSeen: (facts) => {
        status.server = facts;
      },
      whyUndeliverable: () => this.#whyUndeliverable(),
      log,
      signal: this.#stopSignal,
    };
  }

  async #prepare(endpoint: DatabaseEndpoint, control: OwnedConnection): Promise<PreparedServer> {
    const { stream, memory, status, log } = this.#options;
    const { slot, databaseRef } = stream;
    const preparing = prepareSlot(control.sql, this.#setupRequest(endpoint));
    const prepared = await this.#interruptible(within(PREPARE_TIMEOUT_MS, 'prepare the slot', preparing));
    for (const name of prepared.renewedPublications) forgetPublication(memory, name);
    for (const { name, statusLabels } of prepared.publications) {
      notePublication(memory, name, prepared.currentLsn);
      memory.statusLabels.set(name, statusLabels);
    }
    // Another process may have accepted another cluster meanwhile.
    for (const [client, id] of prepared.nextLedger.clusterIds) memory.clusterIds.set(client, id);
    const progress = new Progress(prepared.confirmedFlushLsn, (commitTimeMicros) =>
      status.commitAcknowledge.observe((Date.now() - wallClockMs(commitTimeMicros)) / 1000),
    );
    const plan = planStreaming(prepared.publications, prepared.confirmedFlushLsn, memory.probedBoundaries);
    const ledger = new LedgerKeeper({
      control: control.sql,
      databaseRef,
      slot,
      prepared,
      progress,
      memory,
      status,
      log,
    });
    return { endpoint, control, prepared, plan, progress, ledger };
  }

  /** Nothing before the first publication of the slot is owed, and PostgreSQL cannot stream without a publication. */
  async #advanceToFirstPublication({ control, plan, progress, ledger }: PreparedServer): Promise<SessionOutcome> {
    const { stream, log } = this.#options;
    const { lsn } = plan.boundaries[0]!;
    progress.reached(lsn);
    // First: if the answer were lost, another process would seem to have advanced the slot.
    ledger.remember();
    log.info(
      { event: 'slot_advanced', lsn: formatLsn(lsn) },
      'advancing the slot to the beginning of its first publication',
    );
    await this.#interruptible(ledger.open().then(() => advanceSlot(control.sql, stream.slot, lsn)));
    return 'publication boundary';
  }

  /** Starts replication: from here on the slot is held, statuses go out, and nothing is read or confirmed. */
  async #holdSlot({ endpoint, control, prepared, plan, progress }: PreparedServer): Promise<ReplicationStream> {
    const { stream, memory, log } = this.#options;
    const opening = ReplicationStream.open(endpoint, {
      slot: stream.slot,
      publications: plan.streamed,
      systemIdentifier: prepared.systemIdentifier,
      timeline: prepared.timeline,
      positions: progress,
      timings: livenessTimings(prepared.walSenderTimeoutMs, memory.silentEnds.count),
      isAtWork: () => this.#isWalsenderAtWork(control),
      signal: this.#ended.signal,
      log,
    });
    // Also a stream that opens when the session has ended.
    this.#resources.defer(() => void opening.then((opened) => opened.destroy()).catch(() => {}));
    return await this.#interruptible(within(START_TIMEOUT_MS, 'start replication', opening));
  }

  /** Only while the control connection is open: another process could hold the slot by the time it is open again. */
  async #isWalsenderAtWork(control: OwnedConnection): Promise<boolean> {
    const { stream, log } = this.#options;
    if (control.socket?.destroyed !== false) return false;
    const asked = within(
      WALSENDER_ANSWER_TIMEOUT_MS,
      'look at the walsender',
      isWalsenderAtWork(control.sql, stream.slot),
    );
    const isAtWork = await asked.catch(() => false);
    if (isAtWork) {
      log.info(
        { event: 'walsender_at_work' },
        'the walsender is silent because it decodes what is not streamed, waiting for it',
      );
    }
    return isAtWork;
  }

  async #openKafka(replication: ReplicationStream): Promise<Sinks> {
    const { stream, config, memory, status, log } = this.#options;
    const opening = Sinks.open({
      namespaces: stream.namespaces,
      kafkaClients: config.kafkaClients,
      counts: status.namespaces,
      keptBufferBytes: BUFFERS_PER_BUDGET * inFlightBudgetBytes(config.streams.length),
      resendTimeoutMs: config.resendTimeoutMs,
      maxRetries: config.maxRetries,
      sizeLimits: memory.sizeLimits,
      trial: memory.trial,
      clusterIds: memory.clusterIds,
      signal: this.#ended.signal,
      log,
    });
    this.#resources.defer(() => void opening.then((opened) => opened.close()).catch(() => {}));
    const lost = replication.closed.then((error) => {
      replication.destroy();
      throw error ?? replicationEndedError();
    });
    return await this.#interruptible(Promise.race([opening, lost]));
  }

  async #stream(server: PreparedServer, replication: ReplicationStream, sinks: Sinks): Promise<SessionOutcome> {
    const { control, prepared, plan, progress, ledger } = server;
    const { stream, config, memory, status, log } = this.#options;
    try {
      // The slot is held, and nothing is confirmed yet.
      await this.#interruptible(within(START_TIMEOUT_MS, "write the slot's ledger", ledger.open()));
      const flow = new Flow({
        replication,
        sinks,
        databaseRef: stream.databaseRef,
        slot: stream.slot,
        namespaces: new Set(stream.namespaces.keys()),
        tables: new Map(prepared.publications.flatMap(({ tables }) => [...tables])),
        plan,
        inFlightBudgetBytes: inFlightBudgetBytes(config.streams.length),
        maxRowBytes: config.maxRowBytes ?? defaultMaxRowBytes(process.constrainedMemory(), config.streams.length),
        shutdownTimeoutMs: config.shutdownTimeoutMs,
        currentLsn: prepared.currentLsn,
        progress,
        memory,
        status,
        log,
      });
      status.stream = flow;
      status.enter('streaming');
      this.#logStart(server);
      const { isConfiguredSlot } = this.#options;
      const { slot, namespaces: publishing } = stream;
      const configuration = this.#configuration;
      const { statusLabels } = memory;
      const looked = { control, slot, publishing, prepared, statusLabels };
      const watch = { ...looked, configuration, isConfiguredSlot, ledger, status, log };
      watchSlot({ ...watch, controlError: () => this.#controlError, signal: this.#ended.signal }).catch(
        (error: unknown) => flow.fail(error),
      );
      if (stream.settings.failover) void this.#watchStandbyCopies(server);
      Promise.race(this.#watches).catch((error: unknown) => flow.fail(error));
      const stopped = aborted(this.#stopSignal, this.#ended.signal).then((): StreamEnd => ({ kind: 'signal' }));
      return await this.#conclude(await Promise.race([flow.ended, stopped]), { server, replication, sinks, flow });
    } finally {
      replication.destroy();
      ledger.remember();
      await this.#stopDeadline.settles(CLOSE_LEDGER_TIMEOUT_MS, ledger.close()).catch(() => {});
    }
  }

  #watchStandbyCopies({ endpoint }: PreparedServer): Promise<void> {
    const { stream, status, log } = this.#options;
    return watchStandbyCopies({
      database: stream.database,
      followed: endpoint,
      slot: stream.slot,
      applicationName: this.#controlName,
      status,
      log,
      signal: this.#ended.signal,
    });
  }

  /** The one place that decides what follows from the end of a stream. */
  async #conclude(
    end: StreamEnd,
    stream: {
      readonly server: PreparedServer;
      readonly replication: ReplicationStream;
      readonly sinks: Sinks;
      readonly flow: Flow;
    },
  ): Promise<SessionOutcome> {
    const { log } = this.#options;
    const { replication, sinks, flow } = stream;
    const { control, progress } = stream.server;
    const deadline = this.#stopDeadline;
    const close = { control: control.sql, slot: this.#options.stream.slot, progress, deadline, log };
    if (end.kind === 'failed') {
      if (end.deliverFirst && !replication.isClosed) await closeInOrder(replication, close);
      throw end.error;
    }
    if (this.#stopSignal.aborted) {
      const early = await settleInFlight(flow, { deadline, log });
      if (early?.kind === 'failed') return await this.#conclude(early, stream);
    }
    await closeInOrder(replication, close);
    const facts = { confirmedLsn: formatLsn(progress.flushed), recordCount: sinks.acknowledgedRecordCount };
    if (end.kind === 'renew' && !this.#stopSignal.aborted) {
      const { reason } = end;
      log.info({ event: 'replication_renewed', ...facts, reason }, 'replication continues in a new session');
      return reason;
    }
    log.info({ event: 'replication_stopped', ...facts }, 'replication stopped');
    return 'stopped';
  }

  /** The decoding server cannot find a publication (up to PostgreSQL 17; PostgreSQL 18 warns instead, see Flow). */
  async #findPublicationStarts({ control, prepared, plan, progress }: PreparedServer, error: unknown): Promise<void> {
    const { stream, memory, log } = this.#options;
    await this.#interruptible(
      findPublicationStarts(control.sql, error, {
        databaseRef: stream.databaseRef,
        slot: stream.slot,
        confirmedLsn: progress.flushed,
        streamed: plan.streamed,
        publications: prepared.publications,
        acceptLossAfterLsn: stream.settings.acceptLossAfterLsn,
        memory,
        log,
        signal: this.#stopSignal,
      }),
    );
  }

  #logStart({ prepared, plan }: PreparedServer): void {
    const { reconnectCount, reconnectReason, log } = this.#options;
    log.info(
      {
        event: 'replication_started',
        fromLsn: formatLsn(prepared.confirmedFlushLsn),
        publications: plan.streamed,
        laterPublications: plan.boundaries.map((boundary) => boundary.publication),
        reconnectCount,
        reconnectReason,
        serverMajor: prepared.serverMajor,
        walSenderTimeoutMs: prepared.walSenderTimeoutMs,
      },
      'replication started',
    );
  }
}
