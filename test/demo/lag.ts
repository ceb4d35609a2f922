/** Measures how far a replication slot is behind the server's WAL, in bytes and seconds. */

/** Positions on the server at one time; LSNs as numbers of bytes. */
export interface LagSample {
  readonly timeMs: number;
  readonly currentLsn: number;
  /** Undefined until the slot exists */
  readonly confirmedLsn: number | undefined;
}

/** How far behind the slot is. */
export interface Lag {
  readonly bytes: number;
  /** Time since the server's WAL ended at the confirmed position */
  readonly seconds: number;
}

const MAX_SAMPLES = 10_000;

/** Computes lag from samples; the time is the age of the oldest sample whose WAL end is not confirmed. */
export class LagMeter {
  #samples: LagSample[] = [];

  /** Adds the next sample and returns the lag at its time; undefined until the slot exists. */
  add(sample: LagSample): Lag | undefined {
    const { confirmedLsn } = sample;
    this.#samples.push(sample);
    if (confirmedLsn === undefined) return undefined;
    const firstBehind = this.#samples.findIndex(({ currentLsn }) => currentLsn > confirmedLsn);
    this.#samples =
      firstBehind < 0 ? [] : this.#samples.slice(Math.max(firstBehind, this.#samples.length - MAX_SAMPLES));
    const oldest = this.#samples[0];
    const seconds = oldest === undefined ? 0 : (sample.timeMs - oldest.timeMs) / 1000;
    return { bytes: Math.max(0, sample.currentLsn - confirmedLsn), seconds };
  }
}
