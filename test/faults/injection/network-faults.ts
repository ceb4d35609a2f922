/** What happens to the network, which is a proxy on either side of the service. */
import { isSettledWithin } from '../../../src/deadline.ts';
import type { TcpProxy } from '../../support/network/tcp-proxy.ts';
import type { FaultFixture } from '../fixture/fault-fixture.ts';
import { ALWAYS, BUSY, type Fault } from './fault.ts';
import { cameBack, noticed } from './steps.ts';

const SLOW_MS = 2_500;
const RESET_LIMIT_MS = 30_000;

/** The faults of the network between the service and one side. */
export function networkFaults(
  side: 'PostgreSQL' | 'Kafka',
  proxiesOf: (fixture: FaultFixture) => readonly TcpProxy[],
): readonly Fault[] {
  const settings = { max_retries: 1 };
  return [
    {
      name: `the connections to ${side} are cut`,
      strikes: side,
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
      name: `the connections to ${side} hang half-open`,
      strikes: side,
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
      strikes: side,
      moments: BUSY,
      inject: (fixture) => underNetwork(fixture, proxiesOf(fixture), (proxy) => proxy.latency(150)),
    },
    {
      name: `the network to ${side} trickles`,
      strikes: side,
      moments: BUSY,
      inject: (fixture) => underNetwork(fixture, proxiesOf(fixture), (proxy) => proxy.trickle(2_000)),
    },
    {
      name: `the connection to ${side} is reset in the middle of a frame`,
      strikes: side,
      moments: BUSY,
      settings,
      inject: async (fixture) => {
        for (const direction of ['toClient', 'toServer'] as const) {
          const proxy = proxiesOf(fixture)[0] as TcpProxy;
          const isReset = proxy.resetAfter(direction === 'toClient' ? 101 : 33, direction);
          fixture.workload.start();
          await fixture.workload.advance(60);
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
