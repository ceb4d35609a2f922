/** CPU time and memory of a process, read from /proc (Linux only). */
import { readFileSync } from 'node:fs';

/** USER_HZ: the kernel counts CPU time in 1/100 s on every platform. */
const MICROS_PER_TICK = 10_000;

/** CPU time of a process with all its threads, user and system, in microseconds; undefined once it has ended. */
export function cpuMicros(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The second field is the program's name in parentheses, with any characters: fields are counted after its end. utime and
  // stime are the 14th and the 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * MICROS_PER_TICK;
}

/** Peak resident memory, in bytes; undefined once the process has ended. */
export function peakRssBytes(pid: number): number | undefined {
  return memoryField(pid, 'VmHWM');
}

/** Resident memory now, in bytes; undefined once the process has ended. */
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

/** CPU time and peak memory of a process until it ends; sampled, because /proc has nothing afterwards. */
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

  /** Microseconds; after the process has ended, the last sample, at most one interval before the end. */
  get cpuMicros(): number {
    this.#look();
    return this.#cpuMicros;
  }

  /** Bytes, from the same sample. */
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
