/** Brings the stream to the moment of an injection. */
import { waitFor } from '../../support/process/wait.ts';
import { type FaultFixture, PRODUCE } from '../fixture/fault-fixture.ts';
import type { Moment } from './fault.ts';

/** A transaction that exceeds the in-flight budget: several round trips to Kafka. */
export const HUGE = { events: 6_000, payloadBytes: 400 } as const;

/** Brings a streaming service to a moment. */
export async function reach(fixture: FaultFixture, moment: Moment): Promise<void> {
  const { workload } = fixture;
  workload.start();
  await workload.advance(100);
  switch (moment) {
    case 'idle':
      await workload.stop();
      await fixture.confirmed();
      return;
    case 'load':
      return;
    case 'huge': {
      await workload.writeHuge(HUGE);
      await nextProduce(fixture, 2);
      return;
    }
    case 'backlog': {
      await fixture.service.kill();
      await workload.advance(300);
      await workload.writeHuge(HUGE);
      await fixture.start();
      await nextProduce(fixture, 3);
    }
  }
}

/** Resolves after so many more produce requests. */
async function nextProduce({ kafkaProxies }: FaultFixture, count: number): Promise<void> {
  let seen = 0;
  const gates = kafkaProxies.map((proxy) =>
    proxy.onRequest(PRODUCE, () => {
      seen++;
      return 'forward';
    }),
  );
  await waitFor('produce requests', () => seen >= count, { intervalMs: 1 });
  for (const gate of gates) gate.release();
}
