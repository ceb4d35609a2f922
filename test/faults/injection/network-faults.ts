/** Faults of the network, injected by the proxies on both sides of the service. */
import { settlesWithin } from '../../../src/deadline.ts';
import type { TcpProxy } from '../../support/network/tcp-proxy.ts';
import type { FaultFixture } from '../fixture/fault-fixture.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { cameBack, noticed } from './steps.ts';

const SLOW_MS = 2_500;
const RESET_LIMIT_MS = 30_000;

/** The network faults between the service and one side. */
export function networkFaults(
  side: 'PostgreSQL' | 'Kafka',
  proxiesOf: (fixture: FaultFixture) => readonly TcpProxy[],
): readonly Fault[] {
  const settings = { max_retries: 1 };
  return [
    {
      name: `the connections to ${side} are reset`,
      side: side,
      moments: ALWAYS,
      settings,
      inject: async (fixture) => {
        for (let round = 0; round < 3; round++) {
          for (const proxy of proxiesOf(fixture)) proxy.cut();
          fixture.workload.start();
          await fixture.workload.advance(50);
        }
      },
    },
    {
      name: `the connections to ${side} become half-open`,
      side: side,
      moments: BUSY,
      settings,
      inject: (fixture) =>
        cameBack(fixture, async (since) => {
          fixture.workload.start();
          for (const proxy of proxiesOf(fixture)) proxy.halfOpen();
          try {
            await noticed(fixture, since);
            await fixture.saysNotReady();
          } finally {
            for (const proxy of proxiesOf(fixture)) await proxy.heal();
          }
        }),
    },
    {
      name: `the network to ${side} is slow`,
      side: side,
      moments: BUSY,
      inject: (fixture) => underNetwork(fixture, proxiesOf(fixture), (proxy) => proxy.latency(150)),
    },
    {
      name: `the network to ${side} trickles`,
      side: side,
      moments: BUSY,
      inject: (fixture) => underNetwork(fixture, proxiesOf(fixture), (proxy) => proxy.trickle(2_000)),
    },
    {
      name: `the connection to ${side} is reset in the middle of a frame`,
      side: side,
      moments: BUSY,
      settings,
      inject: async (fixture) => {
        for (const direction of ['toClient', 'toServer'] as const) {
          const proxy = proxiesOf(fixture)[0] as TcpProxy;
          const isReset = proxy.resetAfter(direction === 'toClient' ? 101 : 33, direction);
          fixture.workload.start();
          await fixture.workload.advance(60);
          // The bytes may pass later, when the service reads again; without a reset the fault was not injected.
          if (!(await settlesWithin(RESET_LIMIT_MS, isReset))) throw new Error('The connection was not reset');
          await proxy.heal();
        }
      },
    },
  ];
}

/** Applies a network fault for a while under load. */
async function underNetwork(
  fixture: FaultFixture,
  proxies: readonly TcpProxy[],
  fault: (proxy: TcpProxy) => void,
): Promise<void> {
  fixture.workload.start();
  for (const proxy of proxies) fault(proxy);
  try {
    await fixture.workload.advance(100);
    await Bun.sleep(SLOW_MS);
  } finally {
    for (const proxy of proxies) await proxy.heal();
  }
}
