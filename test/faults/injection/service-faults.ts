/** What happens to the service itself. */
import { expect } from 'bun:test';
import { freePort } from '../../support/network/ports.ts';
import type { Gate } from '../../support/network/tcp-proxy.ts';
import { waitFor } from '../../support/process/wait.ts';
import type { BinaryLogLine, RunningBinary } from '../../support/service/binary.ts';
import { startService } from '../../support/service/binary-fixture.ts';
import { PRODUCE, type Scene } from '../fixture/fault-fixture.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { cameBack, released, walsenderPid } from './steps.ts';

/** The promise is two seconds; the rest is for a machine that has other things to do */
const TAKEOVER_LIMIT_MS = 5_000;

/** Killed, stopped, hung, and taken over from. */
export const SERVICE_FAULTS: readonly Fault[] = [
  {
    name: 'the service is killed',
    strikes: 'service',
    moments: ALWAYS,
    inject: async (scene) => {
      await scene.service.kill();
      await scene.start();
    },
  },
  {
    name: 'the service is killed before a request to produce is sent',
    strikes: 'service',
    moments: ALWAYS,
    inject: (scene) => killAt(scene, (hold) => scene.kafkaProxies.map((proxy) => proxy.onRequest(PRODUCE, hold))),
  },
  {
    name: 'the service is killed after records were produced, before it knows',
    repeats: true,
    strikes: 'service',
    moments: ALWAYS,
    inject: (scene) => killAt(scene, (hold) => scene.kafkaProxies.map((proxy) => proxy.onResponse(PRODUCE, hold))),
  },
  {
    name: 'the service is killed after the acknowledgement, before it is confirmed',
    repeats: true,
    strikes: 'service',
    moments: ALWAYS,
    inject: (scene) => {
      let [confirmed, isAcknowledged] = [0n, false];
      return killAt(scene, (hold) => [
        ...scene.kafkaProxies.map((proxy) =>
          proxy.onResponse(PRODUCE, () => {
            isAcknowledged = true;
            return 'forward';
          }),
        ),
        scene.stage.postgresProxy.onStandbyStatus(({ flushedLsn }) => {
          if (isAcknowledged && flushedLsn > confirmed) return hold();
          confirmed = flushedLsn;
          return 'forward';
        }),
      ]);
    },
  },
  {
    name: 'the service is stopped by SIGSTOP for longer than wal_sender_timeout',
    strikes: 'service',
    moments: ALWAYS,
    inject: (scene) =>
      cameBack(scene, async () => {
        const pid = await walsenderPid(scene);
        scene.service.signal('SIGSTOP');
        await released(scene, pid);
        scene.service.signal('SIGCONT');
      }),
  },
  {
    name: 'the service is stopped in good order and started again',
    moments: ALWAYS,
    inject: async (scene) => {
      expect(await scene.service.stop()).toBe(0);
      await scene.start();
    },
  },
  {
    name: 'the service is killed while another one stands by',
    moments: BUSY,
    inject: async (scene) => {
      const active = scene.service;
      const standby = await startStandbyService(scene);
      const pid = await walsenderPid(scene);
      await active.kill();
      await takesOver(scene, { ...standby, former: pid });
    },
  },
  {
    name: 'the service hangs while another one stands by, and comes back',
    moments: BUSY,
    inject: async (scene) => {
      const active = scene.service;
      const standby = await startStandbyService(scene);
      const pid = await walsenderPid(scene);
      active.signal('SIGSTOP');
      await takesOver(scene, { ...standby, former: pid });
      const line = active.lines.length;
      active.signal('SIGCONT');
      await active.waitForLine('the former one to stand by', isStandingBy, { from: line, timeoutMs: 60_000 });
      await active[Symbol.asyncDispose]();
    },
  },
];

/** Kills the service while the first frame that `gate` holds is on its way. */
async function killAt(scene: Scene, gate: (hold: () => 'hold') => readonly Gate[]): Promise<void> {
  let held = false;
  const gates = gate(() => {
    held = true;
    return 'hold';
  });
  scene.workload.start();
  await waitFor('the frame at the gate', () => held, { intervalMs: 1 });
  await scene.service.kill();
  for (const gate of gates) gate.release();
  await scene.start();
}

const isStandingBy = ({ msg }: BinaryLogLine): boolean => msg.endsWith('standing by');

interface Standby {
  readonly standby: RunningBinary;
  readonly httpPort: number;
}

/** A second service with the same configuration, but for its port. */
async function startStandbyService({ config }: Scene): Promise<Standby> {
  const httpPort = await freePort();
  const standby = await startService({ ...config, http: { ...config.http, port: httpPort } });
  await standby.waitForLine('a standby', isStandingBy);
  return { standby, httpPort };
}

/** The standby becomes the service of the scene, soon. */
async function takesOver(
  scene: Scene,
  { standby, httpPort, former }: Standby & { readonly former: number | undefined },
): Promise<void> {
  const releasedMs = await released(scene, former);
  scene.handOver(standby, httpPort);
  await scene.streamsAgain({ service: standby, line: 0 });
  expect(performance.now() - releasedMs).toBeLessThan(TAKEOVER_LIMIT_MS);
}
