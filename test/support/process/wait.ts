/** Waits for conditions instead of for time. */

/** Options of `waitFor`. */
export interface WaitOptions {
  /** Default 30 s */
  readonly timeoutMs?: number | undefined;
  /** Default 20 ms */
  readonly intervalMs?: number | undefined;
}

/** Calls `condition` until it returns a truthy value and returns that; an error says `Cannot see {what}`. */
export async function waitFor<T>(
  what: string,
  condition: () => T | Promise<T>,
  options: WaitOptions = {},
): Promise<NonNullable<T>> {
  const timeoutMs = options.timeoutMs ?? 30_000;
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (performance.now() > deadline) throw new Error(`Cannot see ${what} within ${timeoutMs} ms`);
    await Bun.sleep(options.intervalMs ?? 20);
  }
}
