import { describe, expect, test } from 'bun:test';
import type { FailureReason } from '../../../src/failure-policy.ts';
import { judgeHealth, judgeReadiness } from '../../../src/status/readiness.ts';
import type { SlotState } from '../../../src/status/slot-status.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';
import { createStatus, MOMENT, type StatusChanges } from '../../support/service/statuses.ts';

const options = { ...MOMENT, inFlightLimitMs: 30_000 };
const ago = (ms: number) => MOMENT.nowMs - ms;
const FAILURE = {
  message: 'Lost the connection',
  advice: 'Check the network',
  reason: 'connection-lost',
  atMs: 1,
} as const;
const FAILURE_WITHOUT_ADVICE = { ...FAILURE, advice: undefined };

describe('judgeReadiness', () => {
  const ready: [string, StatusChanges][] = [
    ['a stream that has nothing to do', {}],
    ['a server whose last message arrived just in time', { stream: { lastInboundMs: ago(60_000) } }],
    [
      'a paused stream: Kafka has to catch up',
      { stream: { lastInboundMs: ago(90_000), isPaused: true, inFlightSinceMs: ago(5) } },
    ],
    ['a row in flight for exactly the limit', { stream: { inFlightSinceMs: ago(30_000) } }],
    [
      'an old backlog that drains',
      { stream: { inFlightSinceMs: ago(5), oldestCommitTimeMs: MOMENT.wallMs - 86_400_000, flushedLsn: 0n } },
    ],
    ['a slot beyond max_wal_size that keeps its WAL', { server: { walStatus: 'extended' } }],
    ['a slot of unknown wal_status', { server: { walStatus: undefined } }],
    ['a failure that is over', { failures: [FAILURE], isProven: true }],
    ['a standby', { state: 'standby', isProven: false }],
    ['a standby whose slot holder is alive', { state: 'standby', holder: { pid: 7, silentMs: 60_000 } }],
    ['a standby whose role may not see the slot holder', { state: 'standby', holder: { pid: 7, silentMs: undefined } }],
    ['a server that has sent nothing for long, at the end of its WAL', { stream: { lastProgressMs: 0 } }],
    [
      'a server that has just stopped sending',
      { stream: { lastProgressMs: ago(90_000) }, server: { serverLsn: 0x2_0000_0000n } },
    ],
    [
      'a paused stream while the WAL grows',
      {
        stream: { lastProgressMs: 0, isPaused: true, inFlightSinceMs: ago(5) },
        server: { serverLsn: 0x2_0000_0000n },
      },
    ],
    [
      'a standby whose earlier session had failed',
      {
        state: 'standby',
        failures: [FAILURE],
        stream: { lastInboundMs: 0, inFlightSinceMs: 0, areBrokersReachable: false },
        server: { walStatus: 'unreserved' },
      },
    ],
  ];
  test.each(ready)('%s is ready', (_what, changes) => {
    const status = createStatus(changes);
    expect(judgeReadiness(status, options)).toEqual({ ready: true, reasons: [] });
    expect(judgeHealth(status, options)).toEqual({ healthy: true, reasons: [] });
  });

  const walStatusReason = (walStatus: string) =>
    `wal_status of the slot is ${walStatus}: PostgreSQL removes WAL that the slot still needs; find out what delays the stream, and raise max_slot_wal_keep_size`;
  const notReady: [string, StatusChanges, string[]][] = [
    ['a stream that has confirmed nothing', { isProven: false }, ['Nothing has been confirmed yet']],
    [
      'a stream that fails at the same place again and again',
      { failures: [FAILURE, FAILURE_WITHOUT_ADVICE] },
      ['Nothing has been confirmed yet, after failure 2 in a row: Lost the connection'],
    ],
    [
      'a silent server',
      { stream: { lastInboundMs: ago(60_100) } },
      ['PostgreSQL has been silent for 60.1 s; a live server answers within 60 s'],
    ],
    [
      'a server that we do not read, though nothing is in flight',
      { stream: { lastInboundMs: ago(61_000), isPaused: true } },
      ['PostgreSQL has been silent for 61 s; a live server answers within 60 s'],
    ],
    [
      'a stuck Kafka',
      { stream: { inFlightSinceMs: ago(30_100) } },
      ['Kafka has not acknowledged a row received 30.1 s ago; http.in_flight_limit is 30 s'],
    ],
    [
      'a stuck Kafka that the socket waits for',
      { stream: { inFlightSinceMs: ago(31_000), isPaused: true, lastInboundMs: ago(90_000) } },
      ['Kafka has not acknowledged a row received 31 s ago; http.in_flight_limit is 30 s'],
    ],
    [
      'brokers that cannot be reached',
      { stream: { areBrokersReachable: false } },
      ['A Kafka cluster of the slot cannot be reached'],
    ],
    [
      'everything at once',
      {
        isProven: false,
        stream: { lastInboundMs: ago(61_000), inFlightSinceMs: ago(61_000), areBrokersReachable: false },
      },
      [
        'Nothing has been confirmed yet',
        'PostgreSQL has been silent for 61 s; a live server answers within 60 s',
        'Kafka has not acknowledged a row received 61 s ago; http.in_flight_limit is 30 s',
        'A Kafka cluster of the slot cannot be reached',
      ],
    ],
    ['a start', { state: 'starting' }, ['Connecting and checking PostgreSQL and Kafka']],
    [
      'a new start',
      { state: 'starting', failures: [FAILURE] },
      [
        'Connecting and checking PostgreSQL and Kafka, after failure 1 in a row: Lost the connection. Check the network',
      ],
    ],
    [
      'a start after a failure that is over',
      { state: 'starting', failures: [FAILURE], isProven: true },
      ['Connecting and checking PostgreSQL and Kafka'],
    ],
    [
      'a pause before a new start',
      { state: 'retrying', failures: [FAILURE_WITHOUT_ADVICE] },
      ['Waiting for the next attempt, after failure 1 in a row: Lost the connection'],
    ],
    [
      'a failure that needs an operator',
      { state: 'needs_operator', failures: [FAILURE] },
      ['Needs an operator, after failure 1 in a row: Lost the connection. Check the network'],
    ],
    [
      'a standby that has not checked whether it could take over',
      { state: 'standby', takeover: undefined },
      ['Checking whether this process could take the slot over'],
    ],
    [
      'a standby that could not deliver',
      { state: 'standby', takeover: { failure: { ...FAILURE, reason: 'kafka-refused' } } },
      ['This process could not take the slot over: Lost the connection. Check the network'],
    ],
    ['a service that stops', { state: 'closed' }, ['The service is stopping']],
  ];
  test.each(notReady)('%s is not ready', (_what, changes, reasons) => {
    const status = createStatus(changes);
    expect(judgeReadiness(status, options)).toEqual({ ready: false, reasons });
    expect(judgeHealth(status, options)).toEqual({ healthy: false, reasons });
  });

  const failing = (state: SlotState, reason: FailureReason, what: string): [string, StatusChanges, string[]] => [
    `${state} after ${reason}`,
    { state, failures: [{ ...FAILURE, reason }] },
    [`${what}, after failure 1 in a row: Lost the connection. Check the network`],
  ];
  const ofStream: [string, StatusChanges, string[]][] = [
    ['a slot in danger', { server: { walStatus: 'unreserved' } }, [walStatusReason('unreserved')]],
    ['a lost slot', { server: { walStatus: 'lost' } }, [walStatusReason('lost')]],
    ['a wal_status of the future', { server: { walStatus: 'unheard' } }, [walStatusReason('unheard')]],
    [
      'a walsender that answers keepalives but sends no WAL',
      { stream: { lastProgressMs: ago(90_100) }, server: { serverLsn: 0x2_0000_0000n } },
      [
        'PostgreSQL has sent nothing after 1/1000 for 90.1 s, although its WAL ends at 2/0; check synchronized_standby_slots, and wait_event of the walsender in pg_stat_activity',
      ],
    ],
    [
      'a standby whose slot holder is frozen',
      { state: 'standby', holder: { pid: 7, silentMs: 60_100 } },
      ['The slot holder has been silent for 60.1 s; if it is dead, run SELECT pg_terminate_backend(7);'],
    ],
    failing('starting', 'invalid-row', 'Connecting and checking PostgreSQL and Kafka'),
    failing('streaming', 'invalid-row', 'Nothing has been confirmed yet'),
    failing('needs_operator', 'invalid-row', 'Needs an operator'),
    failing('needs_operator', 'loss', 'Needs an operator'),
    failing('needs_operator', 'hazard', 'Needs an operator'),
    failing('needs_operator', 'malformed', 'Needs an operator'),
    failing('retrying', 'wal-missing', 'Waiting for the next attempt'),
    failing('retrying', 'object-missing', 'Waiting for the next attempt'),
  ];
  test.each(ofStream)('%s is unhealthy, and no reason to replace this process', (_what, changes, reasons) => {
    const status = createStatus(changes);
    expect(judgeHealth(status, options)).toEqual({ healthy: false, reasons });
    expect(judgeReadiness(status, options)).toEqual({ ready: true, reasons: [] });
  });

  test.each<FailureReason>([
    'authentication',
    'privilege',
    'tls',
    'secret',
    'configuration',
    'setup',
    'not-reachable',
    'kafka-refused',
    'kafka-unavailable',
  ])('a process that fails by %s is not ready', (reason) => {
    const status = createStatus({ state: 'needs_operator', failures: [{ ...FAILURE, reason }] });
    expect(judgeReadiness(status, options).ready).toBe(false);
  });

  test('a warning makes a stream unhealthy, and does not touch readiness', () => {
    const status = createStatus();
    const warning = { code: 'child_table', subject: 'orders', message: 'orders has a child', advice: 'Drop it' };
    status.warnings.update('catalog', [warning], recordingLogger().logger);
    expect(judgeHealth(status, options)).toEqual({ healthy: false, reasons: ['orders has a child. Drop it'] });
    expect(judgeReadiness(status, options)).toEqual({ ready: true, reasons: [] });
  });

  test('a stream without a session is not ready', () => {
    const status = createStatus();
    status.stream = undefined;
    expect(judgeReadiness(status, options)).toEqual({ ready: false, reasons: ['Nothing has been confirmed yet'] });
  });

  test('a slot that was not read yet does not make the stream unready', () => {
    const status = createStatus();
    status.server = undefined;
    expect(judgeReadiness(status, options).ready).toBe(true);
  });
});
