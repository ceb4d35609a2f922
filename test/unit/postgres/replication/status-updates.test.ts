import { afterEach, beforeEach, describe, expect, jest, test } from 'bun:test';
import { encodeStandbyStatusUpdate, StatusUpdates } from '../../../../src/postgres/replication/status-updates.ts';

describe('encodeStandbyStatusUpdate', () => {
  test('writes the 34 bytes of the manual', () => {
    const bytes = encodeStandbyStatusUpdate({
      written: 0x16_b374_d848n,
      flushed: 0xffff_ffff_ffff_ffffn,
      applied: 1n,
      clockMicros: -1n,
      replyRequested: true,
    });
    expect(bytes.toString('hex')).toBe(
      ['72', '00000016b374d848', 'ffffffffffffffff', '0000000000000001', 'ffffffffffffffff', '01'].join(''),
    );
  });

  test('ends in 0 when no reply is asked for', () => {
    const bytes = encodeStandbyStatusUpdate({
      written: 3n,
      flushed: 2n,
      applied: 2n,
      clockMicros: 7n,
      replyRequested: false,
    });
    expect(bytes.toString('hex')).toBe(
      ['72', '0000000000000003', '0000000000000002', '0000000000000002', '0000000000000007', '00'].join(''),
    );
  });
});

describe('StatusUpdates before start', () => {
  beforeEach(() => {
    jest.useFakeTimers();
  });
  afterEach(() => {
    jest.useRealTimers();
  });

  function hold() {
    const sent: { written: bigint; flushed: bigint; applied: bigint }[] = [];
    const positions = { written: 0x100n, flushed: 0x100n };
    const statuses = new StatusUpdates({
      positions,
      timings: { statusIntervalMs: 1_000, answerTimeoutMs: 6_000 },
      write: (bytes) => {
        const [written, flushed, applied] = [1, 9, 17].map((offset) => bytes.readBigUInt64BE(offset));
        sent.push({ written: written!, flushed: flushed!, applied: applied! });
      },
      isPaused: () => true,
      onDead: () => {},
    });
    return { statuses, positions, sent };
  }

  test('statuses go out at the interval and confirm nothing: another process may have advanced the slot', () => {
    const { statuses, sent } = hold();
    jest.advanceTimersByTime(5_000);
    statuses.stop();
    expect(sent.length).toBeGreaterThanOrEqual(5);
    expect(new Set(sent.map(({ written, flushed, applied }) => written + flushed + applied))).toEqual(new Set([0n]));
  });

  test('the first status after it reports the positions at once', () => {
    const { statuses, positions, sent } = hold();
    positions.written = 0x200n;
    statuses.start();
    statuses.stop();
    expect(sent.at(-1)).toEqual({ written: 0x200n, flushed: 0x100n, applied: 0x100n });
  });

  test('the time before it counts neither as silence of the server nor as lack of progress', () => {
    const { statuses } = hold();
    jest.advanceTimersByTime(60_000);
    statuses.start();
    statuses.stop();
    expect([statuses.lastInboundMs, statuses.lastProgressMs]).toEqual([performance.now(), performance.now()]);
  });
});
