import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { Progress } from '../../../src/flow/progress.ts';

/** A complete transaction with so many records. */
function receive(progress: Progress, recordCount: number, endLsn: bigint): void {
  progress.begin();
  for (let index = 0; index < recordCount; index++) progress.nextOrdinal();
  progress.commit(endLsn, 0n);
}

describe('Progress', () => {
  test('starts at the confirmed LSN and never falls below it', () => {
    const progress = new Progress(100n);
    progress.received(50n);
    progress.keepalive(60n);
    expect([progress.written, progress.flushed]).toEqual([100n, 100n]);
  });

  test('confirms the end LSN of a commit when its last record is acknowledged, not before', () => {
    const progress = new Progress(0n);
    receive(progress, 3, 10n);
    progress.acknowledgedBelow(3);
    expect([progress.written, progress.flushed]).toEqual([10n, 0n]);
    progress.acknowledgedBelow(4);
    expect(progress.flushed).toBe(10n);
  });

  test('confirms a commit without records when everything before it is acknowledged', () => {
    const progress = new Progress(0n);
    receive(progress, 0, 10n);
    expect(progress.flushed).toBe(10n);
    receive(progress, 1, 20n);
    receive(progress, 0, 30n);
    expect(progress.flushed).toBe(10n);
    progress.acknowledgedBelow(Number.POSITIVE_INFINITY);
    expect(progress.flushed).toBe(30n);
  });

  test('confirms the last of several commits without records together with the commit before them', () => {
    const progress = new Progress(0n);
    receive(progress, 1, 10n);
    for (let lsn = 11n; lsn <= 20n; lsn++) receive(progress, 0, lsn);
    receive(progress, 1, 30n);
    expect(progress.flushed).toBe(0n);
    progress.acknowledgedBelow(2);
    expect(progress.flushed).toBe(20n);
  });

  test('stops at the first commit with an unacknowledged record', () => {
    const progress = new Progress(0n);
    receive(progress, 2, 10n);
    receive(progress, 1, 20n);
    receive(progress, 1, 30n);
    progress.acknowledgedBelow(3);
    expect(progress.flushed).toBe(10n);
    progress.acknowledgedBelow(4);
    expect(progress.flushed).toBe(20n);
  });

  test('an acknowledgement of everything does not cover later records', () => {
    const progress = new Progress(0n);
    receive(progress, 1, 10n);
    progress.acknowledgedBelow(Number.POSITIVE_INFINITY);
    receive(progress, 1, 20n);
    expect(progress.flushed).toBe(10n);
    expect(progress.isIdle).toBe(false);
  });

  test('confirms no part of a transaction before its Commit, even when all its rows are acknowledged', () => {
    const progress = new Progress(0n);
    receive(progress, 1, 10n);
    progress.begin();
    progress.nextOrdinal();
    progress.received(15n);
    progress.acknowledgedBelow(Number.POSITIVE_INFINITY);
    expect([progress.written, progress.flushed, progress.isIdle]).toEqual([15n, 10n, false]);
  });

  describe('keepalive', () => {
    test('moves the confirmed LSN of an idle slot', () => {
      const progress = new Progress(0n);
      progress.keepalive(50n);
      expect([progress.written, progress.flushed]).toEqual([50n, 50n]);
    });

    test('is ignored within a transaction', () => {
      const progress = new Progress(0n);
      progress.begin();
      progress.keepalive(50n);
      expect([progress.written, progress.flushed]).toEqual([50n, 0n]);
      progress.commit(40n, 0n);
      expect(progress.flushed).toBe(40n);
    });

    test('is confirmed only when no record is in flight', () => {
      const progress = new Progress(0n);
      receive(progress, 1, 10n);
      progress.keepalive(50n);
      expect(progress.flushed).toBe(0n);
      progress.acknowledgedBelow(2);
      expect(progress.flushed).toBe(50n);
    });

    test('that arrived before a transaction waits until the transaction is confirmed as well', () => {
      const progress = new Progress(0n);
      receive(progress, 1, 10n);
      progress.keepalive(50n);
      progress.begin();
      progress.acknowledgedBelow(Number.POSITIVE_INFINITY);
      expect(progress.flushed).toBe(10n);
    });
  });

  test('retains no confirmed commit', () => {
    const progress = new Progress(0n);
    for (let lsn = 1n; lsn <= 100_000n; lsn++) {
      receive(progress, 1, lsn);
      progress.acknowledgedBelow(Number(lsn));
    }
    progress.acknowledgedBelow(Number.POSITIVE_INFINITY);
    expect(progress.flushed).toBe(100_000n);
  });

  test('in any interleaving the confirmed LSN equals that of a simple model and never falls', () => {
    type Step =
      | { kind: 'transaction'; count: number }
      | { kind: 'ack'; part: number }
      | { kind: 'keepalive' }
      | { kind: 'half' };
    const step: fc.Arbitrary<Step> = fc.oneof(
      fc.record({ kind: fc.constant('transaction' as const), count: fc.nat(5) }),
      fc.record({ kind: fc.constant('ack' as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
      fc.record({ kind: fc.constant('keepalive' as const) }),
      fc.record({ kind: fc.constant('half' as const) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const progress = new Progress(0n);
        let lsn = 0n;
        let acknowledged = 0; // every ordinal up to it
        let open = false;
        let keepalive = 0n;
        const commits: { lsn: bigint; ordinal: number }[] = [];
        for (const one of steps) {
          const before = progress.flushed;
          if (one.kind === 'transaction') {
            if (!open) progress.begin();
            for (let index = 0; index < one.count; index++) progress.nextOrdinal();
            progress.commit(++lsn, 0n);
            open = false;
            commits.push({ lsn, ordinal: progress.lastOrdinal });
          } else if (one.kind === 'half') {
            if (!open) progress.begin();
            open = true;
            progress.nextOrdinal();
          } else if (one.kind === 'keepalive') {
            progress.keepalive(++lsn);
            if (!open) keepalive = lsn;
          } else {
            acknowledged += Math.floor((progress.lastOrdinal - acknowledged) * one.part);
            progress.acknowledgedBelow(acknowledged + 1);
          }
          const durable = commits.filter((commit) => commit.ordinal <= acknowledged);
          const allDone = !open && acknowledged === progress.lastOrdinal;
          const lowestPending = commits.find((commit) => commit.ordinal > acknowledged);
          expect(progress.flushed >= (durable.at(-1)?.lsn ?? 0n)).toBe(true);
          if (lowestPending !== undefined) expect(progress.flushed < lowestPending.lsn).toBe(true);
          if (allDone) expect(progress.flushed >= keepalive).toBe(true);
          expect(progress.flushed >= before).toBe(true);
          expect(progress.flushed <= progress.written).toBe(true);
        }
      }),
      { seed: 7, numRuns: 500 },
    );
  });

  test('reports the end of the last confirmed transaction with a record, not of keepalives and empty transactions', () => {
    const progress = new Progress(0n);
    expect(progress.delivered).toBeUndefined();
    receive(progress, 0, 5n);
    progress.keepalive(6n);
    expect([progress.flushed, progress.delivered]).toEqual([6n, undefined]);
    receive(progress, 2, 10n);
    receive(progress, 0, 20n);
    progress.acknowledgedBelow(2);
    expect(progress.delivered).toBeUndefined();
    progress.acknowledgedBelow(Number.POSITIVE_INFINITY);
    expect([progress.flushed, progress.delivered]).toEqual([20n, 10n]);
    progress.keepalive(30n);
    receive(progress, 0, 40n);
    expect([progress.flushed, progress.delivered]).toEqual([40n, 10n]);
  });

  test('passes on the commit time of each commit when it is durable, in order', () => {
    const times: bigint[] = [];
    const progress = new Progress(0n, (commitTimeMicros) => times.push(commitTimeMicros));
    for (const [ordinal, time] of [7n, 8n, 9n].entries()) {
      progress.begin();
      progress.nextOrdinal();
      progress.commit(BigInt(ordinal + 1) * 10n, time);
    }
    expect(progress.oldestPendingCommitMicros).toBe(7n);
    progress.acknowledgedBelow(3);
    expect([times, progress.oldestPendingCommitMicros]).toEqual([[7n, 8n], 9n]);
    progress.acknowledgedBelow(4);
    expect([times, progress.oldestPendingCommitMicros]).toEqual([[7n, 8n, 9n], undefined]);
  });
});
