/** A process whose configuration of the slot is not the newest one: when it may take the slot, and what it warns of. */
import type { Sql } from 'postgres';
import { readPresent } from '../postgres/availability/presence.ts';
import { newerConfigurations } from '../postgres/continuity/configuration-order.ts';
import { readLedger } from '../postgres/continuity/ledger.ts';
import type { SlotWarning } from '../status/slot-warnings.ts';

/** A process that starts over is connected again sooner: it pauses for `reconnect_timeout` between two sessions */
const ABSENCE_PAUSES = 3;
const MIN_ABSENCE_MS = 2_000;
/** Longer than any pause between two starts of a process that crashes at once */
const SETTLED_MS = 3_600_000;

/** `superseded`: a newer configuration is alive. `alone`: a newer one took the slot once, and is not seen. */
export type Precedence = 'newest' | 'alone' | 'superseded';

/** Reads the precedence of a configuration from the slot's ledger and the processes that are connected. */
export async function readPrecedence(control: Sql, slot: string, configuration: string): Promise<Precedence> {
  const ledger = await readLedger(control, slot);
  const newer = newerConfigurations(ledger?.configurations ?? [], configuration);
  return newer.length === 0 ? 'newest' : await precedenceOver(newer, control, slot);
}

/** The precedence of a configuration to which these are newer. */
export async function precedenceOver(
  newer: readonly string[],
  control: Sql,
  slot: string,
): Promise<'alone' | 'superseded'> {
  const present = await readPresent(control, slot);
  return newer.some((one) => present.has(one)) ? 'superseded' : 'alone';
}

/** When a process may take a free slot: at once with the newest configuration, else once it has been alone for long enough. */
export class TakeoverPatience {
  readonly #absenceMs: number;
  #aloneSinceMs: number | undefined;

  constructor(reconnectTimeoutMs: number) {
    this.#absenceMs = Math.max(MIN_ABSENCE_MS, ABSENCE_PAUSES * reconnectTimeoutMs);
  }

  /** The slot is held, so that the newer configurations may be alive. */
  reset(): void {
    this.#aloneSinceMs = undefined;
  }

  mayTake(precedence: Precedence, nowMs: number): boolean {
    if (precedence === 'newest') return true;
    if (precedence === 'superseded') {
      this.reset();
      return false;
    }
    this.#aloneSinceMs ??= nowMs;
    return nowMs - this.#aloneSinceMs >= this.#absenceMs;
  }
}

/** The stream of a superseded configuration: it becomes the newest one when no newer one is seen for an hour. */
export class SupersededStream {
  readonly #slot: string;
  #aloneSinceMs: number | undefined;

  constructor(slot: string) {
    this.#slot = slot;
  }

  /** True once what is streamed was meant: a rollback. */
  isSettled(precedence: 'alone' | 'superseded', nowMs: number): boolean {
    if (precedence === 'superseded') this.#aloneSinceMs = undefined;
    else this.#aloneSinceMs ??= nowMs;
    return this.#aloneSinceMs !== undefined && nowMs - this.#aloneSinceMs >= SETTLED_MS;
  }

  warning(precedence: 'alone' | 'superseded'): SlotWarning {
    const seen =
      precedence === 'alone'
        ? 'no process with the newer one was alive when this one took the slot over'
        : 'a process with the newer one is alive again and stands by';
    return {
      code: 'configuration_superseded',
      subject: this.#slot,
      message:
        'The slot is streamed with a configuration that another one had replaced: ' +
        `${seen}. What the newer one streams in addition is not delivered meanwhile, and is a loss when it comes back`,
      advice:
        'After a rollback of all processes there is nothing to do: the warning ends after an hour. Otherwise stop the processes with ' +
        'the older configuration; the newer one takes the slot over',
    };
  }
}
