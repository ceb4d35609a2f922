import type { Logger } from 'pino';

/**
 * Something is wrong with a slot while its stream goes on: it threatens a later start, endangers rows, or makes the database
 * refuse statements. A failure that ends a session is no warning, see `FailureView`.
 */
export interface SlotWarning {
  /** Kind, in `snake_case`: label of the metric, and stable for alerts */
  readonly code: string;
  /** What it is about within the slot, such as a table or a publication: two warnings of one kind differ in it */
  readonly subject: string;
  /** What happens and where */
  readonly message: string;
  /** What an operator does, with the SQL or the setting */
  readonly advice: string;
}

/** A warning that holds, and since when, ms since 1970. */
export interface StandingWarning extends SlotWarning {
  readonly sinceMs: number;
}

/**
 * The warnings of one slot that hold at present. Who looks reports all that it sees at each look, and the log has a line
 * when a warning begins and one when it ends, however often it is seen in between and however many sessions come and go.
 */
export class SlotWarnings {
  /** By source, then by code and subject */
  readonly #bySource = new Map<string, Map<string, StandingWarning>>();

  /** Every warning that holds, in the order in which the sources first reported. */
  get current(): readonly StandingWarning[] {
    return [...this.#bySource.values()].flatMap((warnings) => [...warnings.values()]);
  }

  /** Drops every warning, and logs nothing: this process does not look any more, so nothing is known. */
  forget(): void {
    this.#bySource.clear();
  }

  /** Replaces the warnings of a source, such as `catalog` or `ledger`, by what it sees now. */
  update(source: string, warnings: readonly SlotWarning[], log: Logger): void {
    const before = this.#bySource.get(source) ?? new Map<string, StandingWarning>();
    const now = new Map<string, StandingWarning>();
    for (const warning of warnings) {
      const key = JSON.stringify([warning.code, warning.subject]);
      const standing = before.get(key);
      now.set(key, { ...warning, sinceMs: standing?.sinceMs ?? Date.now() });
      if (standing !== undefined) continue;
      const { code, subject, advice, message } = warning;
      log.warn({ event: 'slot_warning', code, subject, advice }, message);
    }
    for (const [key, { code, subject, message }] of before) {
      if (!now.has(key)) log.info({ event: 'slot_warning_ended', code, subject }, `no longer: ${message}`);
    }
    this.#bySource.set(source, now);
  }
}
