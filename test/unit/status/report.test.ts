import { expect, test } from 'bun:test';
import type { FailureReason } from '../../../src/failure-policy.ts';
import { reportReadiness, reportStream } from '../../../src/status/report.ts';
import { SlotStatus } from '../../../src/status/slot-status.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';
import { createStatus, MOMENT } from '../../support/service/statuses.ts';

const failure = (reason: FailureReason) => ({
  message: `Cannot, ${reason}`,
  advice: 'Do',
  reason,
  atMs: MOMENT.wallMs,
});

test('reportStream has every fact about a stream', () => {
  const status = createStatus({
    failures: [failure('tls'), failure('setup'), failure('tls')],
    stream: {
      receivedLsn: 0x1_0000_2000n,
      flushedLsn: 0x1_0000_1000n,
      oldestCommitTimeMs: MOMENT.wallMs - 1_500,
      inFlightSinceMs: MOMENT.nowMs - 1_400.4,
    },
    server: { walStatus: 'extended', retainedWalBytes: 8192, safeWalBytes: 1024, serverLsn: 0x1_0000_3000n },
  });
  status.namespaces.get('invoice')!.produced.lifecycle = 3;
  for (let round = 0; round < 2; round++) status.noteResend('NOT_ENOUGH_REPLICAS');
  const childTable = { code: 'child_table', subject: 'orders_events', message: 'a child', advice: 'Drop it' };
  status.warnings.update('catalog', [childTable], recordingLogger().logger);
  const none = { event: 0, lifecycle: 0 };
  const noCounts = { received: none, converted: none, produced: none, parked: none, skipped: none };
  const report = reportStream(status, MOMENT);
  expect(JSON.parse(JSON.stringify(report))).toEqual({
    database: 'db',
    slot: 'cdc_slot',
    state: 'streaming',
    since: new Date(status.stateSinceMs).toISOString(),
    receivedLsn: '1/2000',
    flushedLsn: '1/1000',
    lagBytes: 0x2000,
    lagSeconds: 1.5,
    oldestInFlightSeconds: 1.4,
    lastError: { message: 'Cannot, tls', advice: 'Do', reason: 'tls', at: '2026-01-02T03:04:05.678Z' },
    warnings: [
      {
        code: 'child_table',
        subject: 'orders_events',
        message: 'a child',
        advice: 'Drop it',
        since: new Date(status.warnings.current[0]!.sinceMs).toISOString(),
      },
    ],
    failures: { tls: 2, setup: 1 },
    resends: { NOT_ENOUGH_REPLICAS: 2 },
    consecutiveFailures: 3,
    walStatus: 'extended',
    retainedWalBytes: 8192,
    safeWalBytes: 1024,
    activePid: 42,
    namespaces: { 'default/default': noCounts, invoice: { ...noCounts, produced: { event: 0, lifecycle: 3 } } },
  });
});

test('reportStream has null for unknown values', () => {
  const report = reportStream(new SlotStatus({ database: 'db', slot: 's', namespaces: [] }), MOMENT);
  expect(JSON.parse(JSON.stringify(report))).toEqual({
    database: 'db',
    slot: 's',
    state: 'starting',
    since: report.since,
    receivedLsn: null,
    flushedLsn: null,
    lagBytes: null,
    lagSeconds: null,
    oldestInFlightSeconds: null,
    lastError: null,
    warnings: [],
    failures: {},
    resends: {},
    consecutiveFailures: 0,
    walStatus: null,
    retainedWalBytes: null,
    safeWalBytes: null,
    activePid: null,
    namespaces: {},
  });
});

test('reportReadiness is ready when every stream is, and marks a standby by its state', () => {
  const options = { ...MOMENT, inFlightLimitMs: 30_000 };
  const standby = createStatus({ slot: 'two', state: 'standby' });
  const good = { database: 'db', slot: 'cdc_slot', state: 'streaming', ready: true, reasons: [] } as const;
  const waiting = { database: 'db', slot: 'two', state: 'standby', ready: true, reasons: [] } as const;
  expect(reportReadiness([createStatus(), standby], options)).toEqual({ ready: true, streams: [good, waiting] });
  expect(reportReadiness([createStatus({ state: 'closed' }), standby], options)).toEqual({
    ready: false,
    streams: [{ ...good, state: 'closed', ready: false, reasons: ['The service is stopping'] }, waiting],
  });
});
