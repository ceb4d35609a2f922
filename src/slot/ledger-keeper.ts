/** Keeps the slot's ledger on the server, and the process's own memory of the slot, during a session. */
import type { Logger } from 'pino';
import type { Sql } from 'postgres';
import type { Progress } from '../flow/progress.ts';
import { laterLsn } from '../lsn.ts';
import { ledgerGrantSql, type SlotLedger, writeLedger } from '../postgres/continuity/ledger.ts';
import { claimSlot } from '../postgres/setup/claim-slot.ts';
import type { PreparedSlot } from '../postgres/setup/prepare-slot.ts';
import type { SlotMemory } from './memory.ts';

/** A ledger that is a minute old names the beginning of a loss well enough, and costs an idle database nothing. */
const KEEP_INTERVAL_MS = 60_000;

/** Whose ledger, and what goes into it. */
export interface LedgerKeeperOptions {
  readonly control: Sql;
  readonly databaseRef: string;
  readonly slot: string;
  readonly prepared: PreparedSlot;
  readonly progress: Progress;
  readonly memory: SlotMemory;
  readonly log: Logger;
}

/** See the head of this file. */
export class LedgerKeeper {
  readonly #options: LedgerKeeperOptions;
  #writtenMs = performance.now();
  #writtenOrdinal = 0;
  #isOpen = false;
  #isClosing = false;

  constructor(options: LedgerKeeperOptions) {
    this.#options = options;
    this.remember();
  }

  /**
   * To be called when the slot is ours and nothing is confirmed yet: who finds it moved later knows by whom.
   * @throws SourceError when somebody changed the slot, its ledger or its publications since it was prepared
   */
  async open(): Promise<void> {
    this.#noteOutcome(await claimSlot(this.#options.control, this.#options));
    this.#isOpen = true;
  }

  /** To be called from time to time: writes at most once a minute, and only when records were made since. */
  async keep(): Promise<void> {
    if (this.#isClosing) return;
    const isDue = performance.now() - this.#writtenMs >= KEEP_INTERVAL_MS;
    if (isDue && this.#options.progress.lastOrdinal > this.#writtenOrdinal) await this.#write({ closed: false });
  }

  /**
   * Writes the last word: nothing was confirmed behind what it says. To be called when no more statuses are sent; what
   * Kafka acknowledged since the last one may be part of it. Another process that has taken the slot meanwhile keeps its own.
   */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#isOpen) await this.#write({ closed: true });
  }

  /** Hands on to the next session of this process what this one knows. */
  remember(): void {
    this.#options.memory.known = this.#present(false);
  }

  #present(closed: boolean): SlotLedger {
    const { prepared, progress } = this.#options;
    const ledger = prepared.nextLedger;
    // A server that crashed stands behind what it had confirmed; that stays delivered.
    const deliveredLsn = progress.delivered ?? ledger.deliveredLsn;
    return { ...ledger, confirmedLsn: laterLsn(progress.flushed, ledger.confirmedLsn), deliveredLsn, closed };
  }

  async #write({ closed }: { readonly closed: boolean }): Promise<void> {
    const { control, slot, prepared, progress } = this.#options;
    this.#writtenMs = performance.now();
    this.#writtenOrdinal = progress.lastOrdinal;
    const outcome = await writeLedger(control, {
      slot,
      ledger: this.#present(closed),
      replaces: prepared.storedLedger,
    });
    // Only who has the slot writes: another one's word is about a slot that is not ours any more.
    if (outcome !== 'superseded') this.#noteOutcome(outcome);
  }

  #noteOutcome(outcome: 'written' | 'refused'): void {
    const { memory, slot, prepared, log } = this.#options;
    if (outcome === 'refused' && !memory.isLedgerRefused) {
      log.warn(
        { advice: ledgerGrantSql(slot, prepared.role) },
        'the role may not keep a ledger of the slot on the server: a slot or publication that vanishes while this service is down will not be noticed',
      );
    }
    memory.isLedgerRefused = outcome === 'refused';
  }
}
