import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import { within } from '../deadline.ts';
import type { ErrorPlace } from '../errors.ts';
import { explainFailure, judgeFailure } from '../failure-policy.ts';
import { type SlotHolder, waitUntilFree } from '../postgres/availability/slot-holder.ts';
import type { SlotStatus } from '../status/slot-status.ts';
import { type Precedence, TakeoverPatience } from './superseded.ts';

/** A broker that does not answer is given up sooner; this bounds all of them together */
const REHEARSAL_TIMEOUT_MS = 60_000;

const ANSWER_TIMEOUT_MS = 10_000;
const SUPERSEDED_LOOK_MS = 500;

/** Options of a standby. */
export interface StandbyOptions {
  readonly slot: string;
  readonly place: ErrorPlace;
  /** Tries what a takeover needs without changing anything; rejects with what would keep this process from delivering */
  readonly rehearse: () => Promise<void>;
  /** Reads whether a process with a newer configuration goes first */
  readonly precedence: () => Promise<Precedence>;
  /** Between two rehearsals; and how long a process that could not deliver leaves a free slot to others */
  readonly reconnectTimeoutMs: number;
  readonly status: SlotStatus;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Stands by while another process streams from the slot: polls the slot's holder and rehearses the takeover, shows both in
 * the status, and changes nothing. Resolves when the slot is free and this process may take it: not while a process with a
 * newer configuration is alive.
 */
export async function standBy(control: Sql, options: StandbyOptions): Promise<void> {
  const { slot, status, log, signal, reconnectTimeoutMs } = options;
  const released = new AbortController();
  const patience = new TakeoverPatience(reconnectTimeoutMs);
  const standby = new StandbyNotes(options, released.signal);
  let hasGivenWay = false;
  const onHolder = (holder: SlotHolder) => {
    hasGivenWay = false;
    patience.reset();
    standby.noteHolder(holder);
  };
  try {
    for (;;) {
      await waitUntilFree(control, { slot, signal, onHolder });
      const precedence = await within(ANSWER_TIMEOUT_MS, 'look for newer configurations', options.precedence());
      if (!patience.mayTake(precedence, performance.now())) {
        standby.noteSuperseded();
        await sleep(SUPERSEDED_LOOK_MS, undefined, { signal });
        continue;
      }
      if (status.takeover?.failure === undefined || hasGivenWay) break;
      // A process that can deliver takes the slot meanwhile. Without one this process takes it, to hold it.
      await sleep(reconnectTimeoutMs, undefined, { signal });
      hasGivenWay = true;
    }
  } finally {
    released.abort();
    status.holder = undefined;
    status.takeover = undefined;
  }
  if (status.state !== 'standby') return;
  log.info({ event: 'taking_over' }, 'the slot is free, taking over');
  status.enter('starting');
}

/** What a standby logs and shows, each thing once; its rehearsals begin with the first. */
class StandbyNotes {
  readonly #options: StandbyOptions;
  readonly #released: AbortSignal;
  #isRehearsing = false;
  #isSuperseded = false;

  constructor(options: StandbyOptions, released: AbortSignal) {
    this.#options = options;
    this.#released = released;
  }

  noteHolder(holder: SlotHolder): void {
    const { status, log } = this.#options;
    if (holder.pid !== status.holder?.pid) {
      log.info({ event: 'standing_by', ...holder }, 'another process streams from the slot, standing by');
    }
    this.#enter();
    status.holder = holder;
  }

  noteSuperseded(): void {
    const { status, log } = this.#options;
    status.holder = undefined;
    this.#enter();
    if (this.#isSuperseded) return;
    this.#isSuperseded = true;
    log.info(
      { event: 'configuration_superseded' },
      'a newer configuration has streamed the slot: this process takes it only when no process with that one is alive',
    );
  }

  #enter(): void {
    if (!this.#isRehearsing) void rehearseRepeatedly(this.#options, this.#released);
    this.#isRehearsing = true;
    this.#options.status.enter('standby');
  }
}

/** Logs a failure when it begins, when its cause changes and when it ends; the status always has the last one. */
async function rehearseRepeatedly(options: StandbyOptions, released: AbortSignal): Promise<void> {
  const { place, rehearse, reconnectTimeoutMs, status, log } = options;
  let lastCode: string | undefined;
  while (!released.aborted) {
    const thrown = await within(REHEARSAL_TIMEOUT_MS, 'rehearse the takeover', rehearse()).then(
      () => undefined,
      (error: unknown) => error,
    );
    if (released.aborted) return;
    const error = thrown === undefined ? undefined : explainFailure(thrown).locate(place);
    if (error === undefined) {
      status.takeover = { failure: undefined };
      if (lastCode !== undefined) log.info({ event: 'standby_fit' }, 'this process could take the slot over again');
    } else {
      const { message, advice } = error;
      const { reason } = judgeFailure(thrown);
      status.takeover = { failure: { message, advice, reason, atMs: Date.now() } };
      const what = 'this process could not take the slot over';
      if (error.code !== lastCode) log.warn({ event: 'standby_unfit', error, reason }, what);
    }
    lastCode = error?.code;
    await sleep(reconnectTimeoutMs, undefined, { signal: released }).catch(() => {});
  }
}
