/** What happens to the network, which is a proxy on either side of the service. */
import { isSettledWithin } from '../../../src/deadline.ts';
import type { TcpProxy } from '../../support/network/tcp-proxy.ts';
import type { Scene } from '../fixture/fault-fixture.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { cameBack, noticed } from './steps.ts';

const SLOW_MS = 2_500;
const RESET_LIMIT_MS = 30_000;

/** The faults of the network between the service and one side. */
export function networkFaults(
  side: 'PostgreSQL' | 'Kafka',
  proxiesOf: (scene: Scene) => readonly TcpProxy[],
): readonly Fault[] {
  const settings = { max_retries: 1 };
  return [
    {
      name: `the connections to ${side} are cut`,
      strikes: side,
      moments: ALWAYS,
      settings,
      inject: async (scene) => {
        for (let round = 0; round < 3; round++) {
          for (const proxy of proxiesOf(scene)) proxy.cut();
          scene.workload.start();
          await scene.workload.advance(50);
        }
      },
    },
    {
      name: `the connections to ${side} hang half-open`,
      strikes: side,
      moments: BUSY,
      settings,
      inject: (scene) =>
        cameBack(scene, async (since) => {
          scene.workload.start();
          for (const proxy of proxiesOf(scene)) proxy.halfOpen();
          try {
            await noticed(scene, since);
            await scene.saysNotReady();
          } finally {
            for (const proxy of proxiesOf(scene)) await proxy.heal();
          }
        }),
    },
    {
      name: `the network to ${side} is slow`,
      strikes: side,
      moments: BUSY,
      inject: (scene) => underNetwork(scene, proxiesOf(scene), (proxy) => proxy.latency(150)),
    },
    {
      name: `the network to ${side} trickles`,
      strikes: side,
      moments: BUSY,
      inject: (scene) => underNetwork(scene, proxiesOf(scene), (proxy) => proxy.trickle(2_000)),
    },
    {
      name: `the connection to ${side} is reset in the middle of a frame`,
      strikes: side,
      moments: BUSY,
      settings,
      inject: async (scene) => {
        for (const direction of ['toClient', 'toServer'] as const) {
          const proxy = proxiesOf(scene)[0] as TcpProxy;
          const isReset = proxy.resetAfter(direction === 'toClient' ? 101 : 33, direction);
          scene.workload.start();
          await scene.workload.advance(60);
          // Also where the service does not read at present: else nothing would have happened.
          if (!(await isSettledWithin(RESET_LIMIT_MS, isReset))) throw new Error('The connection was not reset');
          await proxy.heal();
        }
      },
    },
  ];
}

/** Lets `fault` reign over a proxy for a while. */
async function underNetwork(
  scene: Scene,
  proxies: readonly TcpProxy[],
  fault: (proxy: TcpProxy) => void,
): Promise<void> {
  scene.workload.start();
  for (const proxy of proxies) fault(proxy);
  try {
    await scene.workload.advance(100);
    await Bun.sleep(SLOW_MS);
  } finally {
    for (const proxy of proxies) await proxy.heal();
  }
}
