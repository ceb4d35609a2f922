/** Two instances start for the first time at the same moment, for many slots at once: neither reports a loss. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import { type PostgresServer, startPostgres } from '../support/postgres/server.ts';
import { waitFor } from '../support/process/wait.ts';
import type { LoggedError } from '../support/service/in-process.ts';
import { type ServiceProcess, startServiceProcess } from '../support/service/service-process.ts';
import { openStreamFixture, writeProcess } from '../support/service/stream-fixture.ts';

/** First starts of two instances on each version */
const ROUNDS = 5;
const SLOTS_OF_A_ROUND = 20;
const TIMEOUT_MS = 240_000;

const names = Array.from({ length: SLOTS_OF_A_ROUND }, (_, index) => `ns${index}`);

const has = ({ log }: ServiceProcess, event: string, slot: string) =>
  log.some((line) => line.event === event && line.slot === slot);

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  let postgres: PostgresServer;
  let kafka: KafkaServer;
  beforeAll(async () => {
    const settings = {
      track_commit_timestamp: 'on',
      max_connections: '300',
      max_replication_slots: '60',
      max_wal_senders: '60',
    };
    [postgres, kafka] = await Promise.all([startPostgres({ major, settings }), startKafka()]);
  }, 120_000);
  afterAll(async () => {
    await Promise.all([postgres?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
  }, 60_000);

  test(
    `of ${ROUNDS * SLOTS_OF_A_ROUND} slots that two instances start at once, each is streamed by one of them without an alarm`,
    async () => {
      for (let round = 0; round < ROUNDS; round++) {
        const slots = Object.fromEntries(names.map((name) => [name, [name]]));
        await using fixture = await openStreamFixture({ postgres, kafka, slots });
        const [one, other] = await Promise.all([
          startServiceProcess(fixture.serviceOptions()),
          startServiceProcess(fixture.serviceOptions()),
        ]);
        await using instances = new AsyncDisposableStack();
        for (const instance of [one, other]) instances.use(instance);
        for (const slot of names.map(fixture.slot)) {
          const [streams, standsBy] = ['replication_started', 'standing_by'].map(
            (event) => () => [one, other].filter((instance) => has(instance, event, slot)).length === 1,
          ) as [() => boolean, () => boolean];
          await waitFor(`one stream of ${slot}`, streams, { timeoutMs: 60_000 });
          await waitFor(`one standby of ${slot}`, standsBy, { timeoutMs: 60_000 });
        }
        const errors = [one, other].flatMap(({ log }) => log.flatMap(({ error }) => (error as LoggedError) ?? []));
        expect(errors.filter(({ name }) => name === 'LossError')).toEqual([]);
        await writeProcess(fixture, names[round]!, 'first');
        await fixture.confirmed(names[round]!);
        expect(await fixture.emitted(names[round]!)).toHaveLength(1);
      }
    },
    TIMEOUT_MS,
  );
});
