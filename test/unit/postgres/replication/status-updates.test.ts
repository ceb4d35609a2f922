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
      isAtWork: async () => false,
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

describe('the silence of a server', () => {
  beforeEach(() => {
    jest.useFakeTimers();
  });
  afterEach(() => {
    jest.useRealTimers();
  });

  /** A started connection; `answers` are those about the walsender, the last one for good. */
  function listen(...answers: (boolean | Promise<boolean>)[]) {
    const asked: number[] = [];
    const deaths: unknown[] = [];
    const statuses = new StatusUpdates({
      positions: { written: 1n, flushed: 1n },
      timings: { statusIntervalMs: 1_000, answerTimeoutMs: 6_000 },
      write: () => {},
      isPaused: () => false,
      isAtWork: async () => {
        asked.push(performance.now());
        return answers.length > 1 ? answers.shift()! : answers[0]!;
      },
      onDead: (error) => deaths.push(error.code),
    });
    statuses.start();
    return { statuses, asked, deaths };
  }

  /** The clock goes on in ticks, each of which ends before the next. */
  async function pass(ms: number): Promise<void> {
    for (let tick = 0; tick < ms / 100; tick++) {
      jest.advanceTimersByTime(100);
      await Promise.resolve();
      await Promise.resolve();
    }
  }

  test('ends the connection when the walsender is not at work', async () => {
    const { asked, deaths } = listen(false);
    await pass(6_900);
    expect(asked).toEqual([]);
    await pass(10_000);
    expect([asked.length, deaths]).toEqual([1, ['server_silent']]);
  });

  test('is waited out for as long as the walsender is at work, which is asked at each deadline', async () => {
    const { asked, deaths } = listen(true, true, true, false);
    await pass(19_500);
    expect([asked.length, deaths]).toEqual([3, []]);
    await pass(10_000);
    expect([asked.length, deaths]).toEqual([4, ['server_silent']]);
  });

  test('is over when bytes come, also while it is asked', async () => {
    const answer = Promise.withResolvers<boolean>();
    const { statuses, asked, deaths } = listen(answer.promise);
    await pass(8_000);
    expect(asked).toHaveLength(1);
    statuses.noteInbound();
    answer.resolve(false);
    await pass(500);
    statuses.stop();
    expect(deaths).toEqual([]);
  });
});
