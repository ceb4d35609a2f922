import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { Progress } from '../flow/progress.ts';
import { type Lsn, laterLsn } from '../lsn.ts';
import { readEventTriggers } from '../postgres/catalog/event-triggers.ts';
import { SQL_STATE, sqlStateOf } from '../postgres/client/errors.ts';
import { withNewest } from '../postgres/continuity/configuration-order.ts';
import {
  isRefusal,
  type LedgerRefusal,
  ledgerGrantSql,
  ledgerName,
  type SlotLedger,
  writeLedger,
} from '../postgres/continuity/ledger.ts';
import { claimSlot } from '../postgres/setup/claim-slot.ts';
import type { PreparedSlot } from '../postgres/setup/prepare-slot.ts';
import type { SlotStatus } from '../status/slot-status.ts';
import type { SlotWarning } from '../status/slot-warnings.ts';
import type { SlotMemory } from './memory.ts';

/** A ledger that is a minute old is exact enough to name the beginning of a loss, and costs an idle database nothing. */
const KEEP_INTERVAL_MS = 60_000;

/** Options of LedgerKeeper. */
export interface LedgerKeeperOptions {
  readonly control: Sql;
  readonly databaseRef: string;
  readonly slot: string;
  readonly prepared: PreparedSlot;
  readonly progress: Progress;
  readonly memory: SlotMemory;
  readonly status: SlotStatus;
  readonly log: Logger;
}

/**
 * Writes the slot's ledger on the server during a session, and keeps the process's own memory of it: when the slot is
 * claimed, once a minute while records are made, and at the end.
 */
export class LedgerKeeper {
  readonly #options: LedgerKeeperOptions;
  #writtenMs = performance.now();
  #writtenOrdinal = 0;
  #watchedLsn: Lsn | undefined;
  #entryOids: ReadonlyMap<string, readonly number[]>;
  #configurations: readonly string[];
  #isOpen = false;
  #isClosing = false;

  constructor(options: LedgerKeeperOptions) {
    this.#options = options;
    this.#watchedLsn = options.prepared.nextLedger.watchedLsn;
    this.#configurations = options.prepared.nextLedger.configurations;
    this.#entryOids = options.prepared.nextLedger.entryOids;
    this.remember();
  }

  /**
   * Claims the slot in its ledger. To be called while our walsender holds the slot and nothing is confirmed yet: a process
   * that later finds the slot advanced knows by which instance.
   * @throws SlotInUseError when the slot, its ledger or its publications have changed since it was prepared
   */
  async open(): Promise<void> {
    const { control, prepared } = this.#options;
    const claim = { ...this.#options, prepared: { ...prepared, nextLedger: this.#present(false) } };
    await this.#noteOutcome(await claimSlot(control, claim));
    this.#isOpen = true;
  }

  /** Configurations that took the slot, oldest first. */
  get configurations(): readonly string[] {
    return this.#configurations;
  }

  /** Writes that this configuration is the newest one. */
  async settleConfiguration(configuration: string): Promise<void> {
    this.#configurations = withNewest(this.#configurations, configuration);
    if (!this.#isClosing) await this.#write({ closed: false });
  }

  /** What is confirmed at present. */
  get confirmedLsn(): Lsn {
    const { prepared, progress } = this.#options;
    // A server that crashed may be at an earlier position than it had confirmed; that stays delivered.
    return laterLsn(progress.flushed, prepared.nextLedger.confirmedLsn);
  }

  /** What was confirmed when the publications were last seen as they must be. */
  get watchedLsn(): Lsn {
    return this.#watchedLsn ?? this.#options.prepared.nextLedger.confirmedLsn;
  }

  /** Entries of the publications as they were last seen, by namespace. */
  get entryOids(): ReadonlyMap<string, readonly number[]> {
    return this.#entryOids;
  }

  /**
   * The publications were seen as they must be, by a look that began when this was confirmed.
   * @param entryOids by namespace; other ones than before follow those without a gap
   */
  noteWatched(confirmedLsn: Lsn, entryOids: ReadonlyMap<string, readonly number[]>): void {
    this.#watchedLsn = confirmedLsn;
    this.#entryOids = new Map([...this.#entryOids, ...entryOids]);
  }

  /** To be called at intervals: writes at most once a minute, and only when records were made since. */
  async keep(): Promise<void> {
    if (this.#isClosing) return;
    const isDue = performance.now() - this.#writtenMs >= KEEP_INTERVAL_MS;
    if (isDue && this.#options.progress.lastOrdinal > this.#writtenOrdinal) await this.#write({ closed: false });
  }

  /**
   * Writes the closing ledger: nothing is confirmed after its position. To be called when no more statuses are sent; it
   * may include what Kafka acknowledged since the last one. The ledger of another process that holds the slot by now stays.
   */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#isOpen) await this.#write({ closed: true });
  }

  /** Hands the ledger on to the next session of this process. */
  remember(): void {
    this.#options.memory.remembered = this.#present(false);
  }

  #present(closed: boolean): SlotLedger {
    const { prepared, progress, memory } = this.#options;
    const ledger = prepared.nextLedger;
    return {
      ...ledger,
      confirmedLsn: this.confirmedLsn,
      deliveredLsn: progress.delivered ?? ledger.deliveredLsn,
      watchedLsn: this.#watchedLsn,
      entryOids: this.#entryOids,
      closed,
      clusterIds: new Map(memory.clusterIds),
      configurations: this.#configurations,
    };
  }

  async #write({ closed }: { readonly closed: boolean }): Promise<void> {
    const { control, slot, prepared, progress } = this.#options;
    this.#writtenMs = performance.now();
    this.#writtenOrdinal = progress.lastOrdinal;
    const outcome = await writeLedger(control, {
      slot,
      ledger: this.#present(closed),
      replaces: prepared.storedLedger,
      isOfSession: true,
    });
    // A ledger of another instance means that this one no longer holds the slot.
    if (outcome !== 'superseded') await this.#noteOutcome(outcome);
  }

  async #noteOutcome(outcome: 'written' | LedgerRefusal): Promise<void> {
    const { memory, status, log } = this.#options;
    memory.isLedgerRefused = isRefusal(outcome);
    status.warnings.update('ledger', isRefusal(outcome) ? [await this.#warnOf(outcome)] : [], log);
  }

  async #warnOf({ cause }: LedgerRefusal): Promise<SlotWarning> {
    const { control, slot, prepared } = this.#options;
    const state = sqlStateOf(cause);
    const isPrivilege = state === SQL_STATE.insufficientPrivilege;
    const triggers = isPrivilege ? [] : await readEventTriggers(control);
    const reason = isPrivilege ? 'the role may not write it' : `the server refuses the COMMENT (SQLSTATE ${state})`;
    const { storedLedger, timeline } = prepared;
    const isOutdated = storedLedger !== undefined && storedLedger.timeline < timeline;
    return {
      code: 'ledger_refused',
      subject: ledgerName(slot),
      message:
        `The ledger of the slot on the server is not kept, as ${reason}: ` +
        (isOutdated
          ? 'it is of an earlier timeline, so the next start of another process will stop with a loss'
          : 'the service cannot notice a slot or publication that is dropped while it is down'),
      advice: isPrivilege
        ? ledgerGrantSql(slot, prepared.role)
        : triggers.length > 0
          ? `Let the event triggers pass COMMENT ON PUBLICATION: ${triggers.join(', ')}`
          : 'See the log of the server',
    };
  }
}
