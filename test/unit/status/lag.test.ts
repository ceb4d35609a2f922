import { describe, expect, test } from 'bun:test';
import { type Lag, measureLag, presentMoment } from '../../../src/status/lag.ts';
import { createStatus, MOMENT, type StatusChanges } from '../../support/service/statuses.ts';

const UNKNOWN: Lag = { bytes: undefined, ms: undefined, inFlightMs: undefined };

describe('measureLag', () => {
  const behind = {
    flushedLsn: 0x1_0000_0000n,
    oldestCommitTimeMs: MOMENT.wallMs - 2_500,
    inFlightSinceMs: MOMENT.nowMs - 700,
  };
  const cases: [string, StatusChanges, Lag][] = [
    ['nothing to do', {}, { bytes: 0, ms: 0, inFlightMs: 0 }],
    ['something not acknowledged', { stream: behind }, { bytes: 0x1000, ms: 2_500, inFlightMs: 700 }],
    ['WAL not received yet', { server: { serverLsn: 0x1_0000_3000n } }, { bytes: 0x2000, ms: 0, inFlightMs: 0 }],
    [
      'an old view of the server',
      { stream: { receivedLsn: 0x1_0000_5000n }, server: { serverLsn: 0x1_0000_2000n } },
      { bytes: 0x4000, ms: 0, inFlightMs: 0 },
    ],
    [
      'confirmed after the last known end of the WAL (keepalives of an idle server)',
      { stream: { flushedLsn: 0x2_0000_0000n } },
      { bytes: 0, ms: 0, inFlightMs: 0 },
    ],
    [
      'a server clock ahead of ours',
      { stream: { oldestCommitTimeMs: MOMENT.wallMs + 50 } },
      { bytes: 0, ms: 0, inFlightMs: 0 },
    ],
    [
      'a failed session with an unconfirmed commit: it ages, nothing is in flight',
      { state: 'retrying', stream: behind },
      { bytes: 0x1000, ms: 2_500, inFlightMs: undefined },
    ],
    [
      'a failed session with nothing unconfirmed: later commits are unknown',
      { state: 'needs_operator' },
      { bytes: 0, ms: undefined, inFlightMs: undefined },
    ],
    ['a standby that streamed before', { state: 'standby', stream: behind }, UNKNOWN],
  ];
  test.each(cases)('%s', (_what, changes, lag) => {
    expect(measureLag(createStatus(changes), MOMENT)).toEqual(lag);
  });

  test('nothing is known before the first session', () => {
    const status = createStatus({ state: 'starting' });
    status.stream = undefined;
    expect(measureLag(status, MOMENT)).toEqual(UNKNOWN);
  });

  test('before the first session of a process, the position of the slot counts', () => {
    const status = createStatus({ state: 'retrying', server: { serverLsn: 0x5000n, confirmedFlushLsn: 0x1000n } });
    status.stream = undefined;
    expect(measureLag(status, MOMENT)).toEqual({ ...UNKNOWN, bytes: 0x4000 });
  });

  test('without a view of the server, the received position counts', () => {
    const status = createStatus({ stream: behind });
    status.server = undefined;
    expect(measureLag(status, MOMENT).bytes).toBe(0x1000);
  });
});

test('presentMoment reads both clocks', () => {
  const moment = presentMoment();
  expect(Math.abs(moment.nowMs - performance.now())).toBeLessThan(1_000);
  expect(Math.abs(moment.wallMs - Date.now())).toBeLessThan(1_000);
});
