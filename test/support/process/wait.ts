/** Waiting for a condition instead of for time. */

/** How long to wait, and what to say when it was in vain. */
export interface WaitOptions {
  /** Default 30 s */
  readonly timeoutMs?: number | undefined;
  /** Default 20 ms */
  readonly intervalMs?: number | undefined;
}

/** Asks `condition` until it returns something truthy and returns that; `what` completes `Cannot see ...`. */
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
