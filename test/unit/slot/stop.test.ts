import { describe, expect, test } from 'bun:test';
import { SourceError } from '../../../src/errors.ts';
import { closeInOrder, StopDeadline, settleInFlight } from '../../../src/slot/stop.ts';
import { endOf, events, FlowFixture, settle } from '../../support/service/flow-fixture.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

function stopWithin(timeoutMs: number): StopDeadline {
  return new StopDeadline(timeoutMs, { stop: AbortSignal.abort(), ended: new AbortController().signal });
}

describe('settleInFlight', () => {
  async function inFlight(): Promise<FlowFixture> {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'));
    return fixture;
  }

  test('returns nothing when Kafka acknowledges in time', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    const settling = settleInFlight(fixture.flow, { deadline: stopWithin(5_000), log: logger });
    await settle();
    await fixture.acknowledge();
    expect([await settling, lines]).toEqual([undefined, []]);
  });

  test('returns a failure that ends the flow first, so that it is reported and nothing is confirmed after it', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    const settling = settleInFlight(fixture.flow, { deadline: stopWithin(5_000), log: logger });
    const error = new SourceError('Cannot continue', { code: 'x' });
    fixture.flow.fail(error);
    expect([await settling, lines]).toEqual([{ kind: 'failed', error, deliverFirst: false }, []]);
  });

  test('the rest of an open transaction is taken before the wait for Kafka', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    const open = events(0x300n, 'p2');
    await fixture.receive(...open.slice(0, -1));
    const settling = settleInFlight(fixture.flow, { deadline: stopWithin(5_000), log: logger });
    await fixture.acknowledge();
    await fixture.receive(open.at(-1)!, ...events(0x400n, 'p3'));
    await fixture.acknowledge();
    expect([await settling, lines, fixture.keys]).toEqual([undefined, [], ['invoice p1', 'invoice p2']]);
    expect(fixture.stream.sent.at(-1)).toMatchObject({ flushed: endOf(0x300n) });
  });

  test('a transaction that does not end in time is left to the next start', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    await fixture.receive(...events(0x300n, 'p2').slice(0, -1));
    const settling = settleInFlight(fixture.flow, { deadline: stopWithin(50), log: logger });
    await fixture.acknowledge();
    expect([await settling, lines]).toEqual([undefined, []]);
    expect(fixture.stream.sent.at(-1)).toMatchObject({ flushed: endOf(0x200n) });
  });

  test('warns when the time is over', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    expect(await settleInFlight(fixture.flow, { deadline: stopWithin(1), log: logger })).toBeUndefined();
    expect(lines).toEqual([expect.objectContaining({ event: 'shutdown_timeout' })]);
  });
});

describe('StopDeadline', () => {
  test('Kafka leaves a quarter of the time to PostgreSQL, 5 s at most', () => {
    expect(stopWithin(4_000).kafkaMs).toBeWithin(2_500, 3_001);
    expect(stopWithin(60_000).kafkaMs).toBeWithin(54_000, 55_001);
    expect(stopWithin(0).kafkaMs).toBe(0);
  });

  test('a stop bounds the wait that it finds', async () => {
    const stop = new AbortController();
    const deadline = new StopDeadline(10, { stop: stop.signal, ended: new AbortController().signal });
    expect(deadline.limit(5_000)).toBe(5_000);
    const settling = deadline.settles(600_000, new Promise(() => {}));
    stop.abort();
    expect(await settling).toBe(false);
  });
});

describe('closeInOrder', () => {
  test('a server that does not answer holds up the stop no longer than its end', async () => {
    const { logger, lines } = recordingLogger();
    const calls: string[] = [];
    const silent = () => new Promise<never>(() => {});
    const replication = {
      finish: () => calls.push('finish'),
      closed: silent(),
      destroy: () => calls.push('destroy'),
    };
    const deadline = stopWithin(100);
    const startMs = performance.now();
    await closeInOrder(replication as never, {
      control: silent as never,
      slot: 'slot',
      progress: { flushed: 0n } as never,
      deadline,
      log: logger,
    });
    expect(performance.now() - startMs).toBeLessThan(1_000);
    expect(calls).toEqual(['finish', 'destroy']);
    expect(lines).toEqual([expect.objectContaining({ event: 'confirmation_unverified' })]);
  });
});
