/** Programs under measurement: started, read line by line, and ended with this process however it ends. */
import { guardProcess, releaseProcess } from '../../support/process/guardian.ts';

/** Lines of output in an error. */
const SHOWN_LINES = 15;

/** A running program; its stderr is read by lines. */
export class ChildProgram implements AsyncDisposable {
  readonly pid: number;
  readonly #name: string;
  readonly #child: Bun.Subprocess<'ignore', 'ignore', 'pipe'>;
  readonly #lines: string[] = [];
  readonly #waiters: { readonly includes: string; resolve(line: string): void }[] = [];
  readonly #outputRead: Promise<void>;

  constructor(
    command: readonly string[],
    options: { readonly env?: Record<string, string>; readonly cwd?: string } = {},
  ) {
    this.#name = command[0] as string;
    this.#child = Bun.spawn([...command], {
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: 'pipe',
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    this.pid = this.#child.pid;
    guardProcess(this.pid, 'KILL');
    this.#outputRead = this.#readLines();
  }

  /** Resolves with the `count`th line of stderr that contains the text; rejects when the program ends before. */
  async line(includes: string, count = 1): Promise<string> {
    for (;;) {
      const found = this.linesWith(includes);
      if (found.length >= count) return found[count - 1] as string;
      const { promise, resolve } = Promise.withResolvers<string>();
      this.#waiters.push({ includes, resolve });
      await Promise.race([promise, this.#endedEarly(`it wrote "${includes}"`)]);
    }
  }

  /** The lines so far that contain the text. */
  linesWith(includes: string): readonly string[] {
    return this.#lines.filter((line) => line.includes(includes));
  }

  /** Rejects when the program ends before `promise` has settled. */
  async while<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#endedEarly('its work was done')]);
  }

  /** Resolves when it has ended with exit code 0; rejects after any other end. */
  async ended(): Promise<void> {
    const code = await this.#child.exited;
    releaseProcess(this.pid);
    await this.#outputRead;
    if (code !== 0)
      throw new Error(`Cannot run ${this.#name}: ${this.#child.signalCode ?? `exit code ${code}`}: ${this.#tail()}`);
  }

  /** Sends SIGTERM and waits until it has ended. */
  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.ended();
  }

  /** CPU time of the ended program, in microseconds. */
  cpuMicros(): number {
    const usage = this.#child.resourceUsage();
    if (usage === undefined) throw new Error(`Cannot read the usage of ${this.#name}: it runs`);
    return Number(usage.cpuTime.total);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#child.exited;
    releaseProcess(this.pid);
  }

  async #endedEarly(what: string): Promise<never> {
    await this.#child.exited;
    await this.#outputRead;
    throw new Error(`${this.#name} ended before ${what}: ${this.#tail()}`);
  }

  async #readLines(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = '';
    for await (const chunk of this.#child.stderr) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
      rest = lines.pop() as string;
      for (const line of lines) this.#onLine(line);
    }
    if (rest !== '') this.#onLine(rest);
  }

  #onLine(line: string): void {
    this.#lines.push(line);
    for (const waiter of this.#waiters) if (line.includes(waiter.includes)) waiter.resolve(line);
  }

  #tail(): string {
    return this.#lines.slice(-SHOWN_LINES).join('\n');
  }
}
