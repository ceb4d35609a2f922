/** The only way to bound a wait: by time, by the end of a session, or by the stop of the service. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SourceError } from './errors.ts';

/**
 * The result of `work`, if it comes in time. What still runs after that goes on unobserved.
 * @param action completes `Cannot ...: no answer within 500 ms`
 * @throws SourceError when the time is over, and what `work` rejects with
 */
export async function within<T>(timeoutMs: number, action: string, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new SourceError(`Cannot ${action}: no answer within ${timeoutMs} ms`, { code: 'no_answer' })),
    timeoutMs,
  );
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** True when the promise resolves in time, false when the time is over first. @throws what it rejects with */
export async function settlesWithin(timeoutMs: number, promise: Promise<unknown>): Promise<boolean> {
  return await Promise.race([promise.then(() => true), sleep(timeoutMs, false, { ref: false })]);
}

/** Resolves when `signal` aborts. The listener is removed with `ended`, or a long-lived signal would collect listeners. */
export function aborted(signal: AbortSignal, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true, signal: ended });
  });
}

/** Rejects with the reason of `signal` when it aborts; to be raced against work that then goes on unobserved. */
export function rejectOnAbort(signal: AbortSignal, ended: AbortSignal): Promise<never> {
  const rejection = aborted(signal, ended).then(() => {
    throw signal.reason;
  });
  rejection.catch(() => {});
  return rejection;
}
