import { describe, expect, test } from 'bun:test';
import type { FailureReason } from '../../../src/failure-policy.ts';
import { SlotStatus } from '../../../src/status/slot-status.ts';
import { waitFor } from '../../support/process/wait.ts';

const create = () => new SlotStatus({ database: 'db', slot: 'slot', namespaces: ['a', 'b'] });
const failure = (reason: FailureReason) => ({ message: 'Cannot', advice: undefined, reason, atMs: 1 });

describe('SlotStatus', () => {
  test('starts with nothing proven and nothing counted', () => {
    const status = create();
    expect(status).toMatchObject({ state: 'starting', isProven: false, consecutiveFailureCount: 0 });
    const none = { event: 0, lifecycle: 0 };
    const counts = { received: none, converted: none, produced: none, parked: none, skipped: none };
    expect(Object.fromEntries(status.namespaces)).toEqual({ a: counts, b: counts });
  });

  test('counts of two namespaces, and of two kinds, are not the same object', () => {
    const status = create();
    status.namespaces.get('a')!.received.event++;
    expect(status.namespaces.get('a')!.received).toEqual({ event: 1, lifecycle: 0 });
    expect(status.namespaces.get('a')!.converted.event).toBe(0);
    expect(status.namespaces.get('b')!.received.event).toBe(0);
  });

  test('a state begins when it is entered, not when it is entered again', async () => {
    const status = create();
    const first = status.stateSinceMs;
    await waitFor('the next millisecond', () => Date.now() > first, { intervalMs: 1 });
    status.enter('starting');
    expect(status.stateSinceMs).toBe(first);
    status.enter('streaming');
    expect(status.state).toBe('streaming');
    expect(status.stateSinceMs).toBeGreaterThan(first);
  });

  test('failures are counted by reason, and in a row until something is proven', () => {
    const status = create();
    status.noteProven();
    for (const reason of ['tls', 'setup', 'tls'] as const) status.noteFailure(failure(reason));
    expect(status).toMatchObject({ isProven: false, consecutiveFailureCount: 3, lastFailure: failure('tls') });
    status.noteProven();
    expect(status).toMatchObject({ isProven: true, consecutiveFailureCount: 0, lastFailure: failure('tls') });
    expect(Object.fromEntries(status.failureCounts)).toEqual({ tls: 2, setup: 1 });
  });
});
