/** Faults of the service itself. */
import { expect } from 'bun:test';
import { freePort } from '../../support/network/ports.ts';
import type { Gate } from '../../support/network/tcp-proxy.ts';
import { waitFor } from '../../support/process/wait.ts';
import type { BinaryLogLine, RunningBinary } from '../../support/service/binary.ts';
import { startService } from '../../support/service/binary-fixture.ts';
import { type FaultFixture, PRODUCE } from '../fixture/fault-fixture.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { cameBack, released, walsenderPid } from './steps.ts';

/** Two seconds are promised; the rest is tolerance for a busy machine */
const TAKEOVER_LIMIT_MS = 5_000;

/** Kills, stops, freezes and takeovers. */
export const SERVICE_FAULTS: readonly Fault[] = [
  {
    name: 'the service is killed',
    side: 'service',
    moments: ALWAYS,
    inject: async (fixture) => {
      await fixture.service.kill();
      await fixture.start();
    },
  },
  {
    name: 'the service is killed before a request to produce is sent',
    side: 'service',
    moments: ALWAYS,
    inject: (fixture) => killAt(fixture, (hold) => fixture.kafkaProxies.map((proxy) => proxy.onRequest(PRODUCE, hold))),
  },
  {
    name: 'the service is killed after records were produced, before it gets the answer',
    repeats: true,
    side: 'service',
    moments: ALWAYS,
    inject: (fixture) =>
      killAt(fixture, (hold) => fixture.kafkaProxies.map((proxy) => proxy.onResponse(PRODUCE, hold))),
  },
  {
    name: 'the service is killed after the acknowledgement, before it is confirmed',
    repeats: true,
    side: 'service',
    moments: ALWAYS,
    inject: (fixture) => {
      let [confirmed, isAcknowledged] = [0n, false];
      return killAt(fixture, (hold) => [
        ...fixture.kafkaProxies.map((proxy) =>
          proxy.onResponse(PRODUCE, () => {
            isAcknowledged = true;
            return 'forward';
          }),
        ),
        fixture.servers.postgresProxy.onStandbyStatus(({ flushedLsn }) => {
          if (isAcknowledged && flushedLsn > confirmed) return hold();
          confirmed = flushedLsn;
          return 'forward';
        }),
      ]);
    },
  },
  {
    name: 'the service is frozen for longer than wal_sender_timeout',
    side: 'service',
    moments: ALWAYS,
    inject: (fixture) =>
      cameBack(fixture, async () => {
        // A fault of PostgreSQL at the same time may have ended the walsender, or the connection of the test.
        const pid = await waitFor('a walsender', () => walsenderPid(fixture).catch(() => undefined));
        fixture.service.signal('SIGSTOP');
        await released(fixture, pid);
        fixture.service.signal('SIGCONT');
      }),
  },
  {
    name: 'the service is stopped gracefully and started again',
    moments: ALWAYS,
    inject: async (fixture) => {
      expect(await fixture.service.stop()).toBe(0);
      await fixture.start();
    },
  },
  {
    name: 'the service is killed while another one stands by',
    moments: BUSY,
    inject: async (fixture) => {
      const active = fixture.service;
      const standby = await startStandbyService(fixture);
      const pid = await walsenderPid(fixture);
      await active.kill();
      await takesOver(fixture, { ...standby, former: pid });
    },
  },
  {
    name: 'the service hangs while another one stands by, and resumes',
    moments: BUSY,
    inject: async (fixture) => {
      const active = fixture.service;
      const standby = await startStandbyService(fixture);
      const pid = await walsenderPid(fixture);
      active.signal('SIGSTOP');
      await takesOver(fixture, { ...standby, former: pid });
      const line = active.lines.length;
      active.signal('SIGCONT');
      await active.waitForLine('the former one to stand by', isStandingBy, { from: line, timeoutMs: 60_000 });
      await active[Symbol.asyncDispose]();
    },
  },
];

/** Kills the service while the first frame is held by one of the gates. */
async function killAt(fixture: FaultFixture, gate: (hold: () => 'hold') => readonly Gate[]): Promise<void> {
  let held = false;
  const gates = gate(() => {
    held = true;
    return 'hold';
  });
  fixture.workload.start();
  await waitFor('the frame at the gate', () => held, { intervalMs: 1 });
  await fixture.service.kill();
  for (const gate of gates) gate.release();
  await fixture.start();
}

const isStandingBy = ({ msg }: BinaryLogLine): boolean => msg.endsWith('standing by');

interface Standby {
  readonly standby: RunningBinary;
  readonly httpPort: number;
}

/** Starts a second service with the same configuration and another HTTP port. */
async function startStandbyService({ config }: FaultFixture): Promise<Standby> {
  const httpPort = await freePort();
  const standby = await startService({ ...config, http: { ...config.http, port: httpPort } });
  await standby.waitForLine('a standby', isStandingBy);
  return { standby, httpPort };
}

/** Expects the standby to stream soon, and makes it the service of the fixture. */
async function takesOver(
  fixture: FaultFixture,
  { standby, httpPort, former }: Standby & { readonly former: number | undefined },
): Promise<void> {
  const releasedMs = await released(fixture, former);
  fixture.handOver(standby, httpPort);
  await fixture.streamsAgain({ service: standby, line: 0 });
  expect(performance.now() - releasedMs).toBeLessThan(TAKEOVER_LIMIT_MS);
}
