/** What the kernel says about a process, by its files under /proc (Linux alone). */
import { readFileSync } from 'node:fs';

/** The kernel counts in ticks of 1/100 s on every platform that it runs on (USER_HZ). */
const MICROS_PER_TICK = 10_000;

/** CPU time of a process with all its threads, user and system, in microseconds; undefined once it has ended. */
export function cpuMicros(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The second field is the program's name in parentheses and may hold anything, so fields are counted after its end:
  // utime and stime are the 14th and the 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * MICROS_PER_TICK;
}

/** Largest resident memory that the process ever had, in bytes; undefined once it has ended. */
export function peakRssBytes(pid: number): number | undefined {
  return memoryField(pid, 'VmHWM');
}

/** Resident memory of the process now, in bytes; undefined once it has ended. */
export function rssBytes(pid: number): number | undefined {
  return memoryField(pid, 'VmRSS');
}

function memoryField(pid: number, name: string): number | undefined {
  try {
    const line = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
    return line === null ? undefined : Number(line[1]) * 1024;
  } catch {
    return undefined;
  }
}

/** CPU time and memory of a process up to its end, which leaves nothing to read: looks at it all the time. */
export class ProcessWatch implements Disposable {
  readonly #pid: number;
  readonly #timer: Timer;
  #cpuMicros = 0;
  #peakRssBytes = 0;

  constructor(pid: number, intervalMs = 50) {
    this.#pid = pid;
    this.#look();
    this.#timer = setInterval(() => this.#look(), intervalMs);
  }

  /** Microseconds, as of now or, when the process has ended, as of one interval before its end at the earliest. */
  get cpuMicros(): number {
    this.#look();
    return this.#cpuMicros;
  }

  /** Bytes, as of the same moment. */
  get peakRssBytes(): number {
    this.#look();
    return this.#peakRssBytes;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    this.#cpuMicros = cpuMicros(this.#pid) ?? this.#cpuMicros;
    this.#peakRssBytes = peakRssBytes(this.#pid) ?? this.#peakRssBytes;
  }
}
