/** Waits that end: with the service, with the session, or with their time. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SourceError } from './errors.ts';

/** True when the promise resolves within the time, false when the time is over before. @throws what it rejects with */
export async function isSettledWithin(timeoutMs: number, promise: Promise<unknown>): Promise<boolean> {
  return await Promise.race([promise.then(() => true), sleep(timeoutMs, false, { ref: false })]);
}

/**
 * The answer of a server that normally answers at once.
 * @param action completes `Cannot ...: no answer of the server`
 * @throws SourceError when it does not come in time, and what the promise rejects with
 */
export async function answeredWithin<T>(action: string, timeoutMs: number, promise: Promise<T>): Promise<T> {
  const answered = new AbortController();
  try {
    return await Promise.race([promise, rejectLater(action, timeoutMs, answered.signal)]);
  } finally {
    answered.abort();
  }
}

/** Rejects when the signal is given. What it is raced against goes on unobserved: the process is about to end. */
export function rejectOnAbort(signal: AbortSignal, ended: AbortSignal): Promise<never> {
  const rejection = aborted(signal, ended).then(() => {
    throw signal.reason;
  });
  rejection.catch(() => {});
  return rejection;
}

/**
 * Rejects when the time is over, unless the signal says that nobody waits any more.
 * @param action completes `Cannot ...: no answer of the server`
 */
export async function rejectLater(action: string, timeoutMs: number, signal: AbortSignal): Promise<never> {
  await sleep(timeoutMs, undefined, { signal }).catch(() => new Promise<never>(() => {}));
  throw new SourceError(`Cannot ${action}: no answer of the server within ${timeoutMs} ms`);
}

/** Resolves when the signal is given. The listener goes with the session, or the process would keep every one of them. */
export function aborted(signal: AbortSignal, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true, signal: ended });
  });
}
