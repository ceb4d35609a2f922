import { describe, expect, test } from 'bun:test';
import { SourceError } from '../../../src/errors.ts';
import { settleInFlight } from '../../../src/slot/stop.ts';
import { endOf, events, FlowFixture, settle } from '../../support/service/flow-fixture.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

describe('settleInFlight', () => {
  async function inFlight(): Promise<FlowFixture> {
    const fixture = new FlowFixture();
    await fixture.receive(...events(0x200n, 'p1'));
    return fixture;
  }

  test('returns nothing when Kafka acknowledges in time', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    const settling = settleInFlight(fixture.flow, { shutdownTimeoutMs: 5_000, log: logger });
    await settle();
    await fixture.acknowledge();
    expect([await settling, lines]).toEqual([undefined, []]);
  });

  test('returns a failure that ends the flow first, so that it is reported and nothing is confirmed after it', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    const settling = settleInFlight(fixture.flow, { shutdownTimeoutMs: 5_000, log: logger });
    const error = new SourceError('Cannot continue', { code: 'x' });
    fixture.flow.fail(error);
    expect([await settling, lines]).toEqual([{ kind: 'failed', error, deliverFirst: false }, []]);
  });

  test('the rest of an open transaction is taken before the wait for Kafka', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    const open = events(0x300n, 'p2');
    await fixture.receive(...open.slice(0, -1));
    const settling = settleInFlight(fixture.flow, { shutdownTimeoutMs: 5_000, log: logger });
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
    const settling = settleInFlight(fixture.flow, { shutdownTimeoutMs: 50, log: logger });
    await fixture.acknowledge();
    expect([await settling, lines]).toEqual([undefined, []]);
    expect(fixture.stream.sent.at(-1)).toMatchObject({ flushed: endOf(0x200n) });
  });

  test('warns when the time is over', async () => {
    const { logger, lines } = recordingLogger();
    const fixture = await inFlight();
    expect(await settleInFlight(fixture.flow, { shutdownTimeoutMs: 1, log: logger })).toBeUndefined();
    expect(lines).toEqual([expect.objectContaining({ event: 'shutdown_timeout' })]);
  });
});
