/** A namespace in two slots of a database: they share its publication, and each delivers every record. Real servers. */
import { describe, expect, test } from 'bun:test';
import { waitFor } from '../../support/process/wait.ts';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import { type ServiceSlot, startInProcessService } from '../../support/service/in-process.ts';
import { insertEvent, openStreamFixture } from '../../support/service/stream-fixture.ts';

/** The topics of the second one take the records of the second slot */
const [NS, OTHER] = ['orders', 'invoice'] as const;
const TIMEOUT_MS = 120_000;

const kafka = useKafka();

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);

  test(
    'both slots deliver every record of it, from the first start on and after a restart of either',
    async () => {
      await using fixture = await openStreamFixture({
        postgres: postgres(),
        kafka: kafka(),
        slots: { one: [NS], two: [OTHER] },
      });
      const options = fixture.serviceOptions();
      const [one, two] = options.slots;
      const shared = { ...two!, namespaces: { [NS]: fixture.topics(OTHER) } };
      const start = (...slots: ServiceSlot[]) => startInProcessService({ ...options, slots });
      const keys = async (namespace: string) => (await fixture.records(namespace)).map(({ key }) => String(key)).sort();
      const write = (id: string) => fixture.commit((tx) => insertEvent(tx, NS, id, 1));
      const arrived = async (...ids: string[]) => {
        const expected = ids.map((id) => `${NS} ${id}`);
        for (const namespace of [NS, OTHER]) {
          await waitFor(`${ids} in the topics of ${namespace}`, async () => {
            const found = await keys(namespace);
            return expected.every((key) => found.includes(key));
          });
          expect(await keys(namespace)).toEqual(expected);
        }
      };
      {
        await using both = start(one!, shared);
        await both.waitForStart(one!.slot, shared.slot);
        await write('p1');
        await arrived('p1');
        expect(both.failures().filter(({ name }) => name === 'LossError')).toEqual([]);
      }
      {
        await using first = start(one!);
        await first.waitForStart(one!.slot);
        await write('p2');
        await fixture.confirmed('one');
      }
      await using again = start(one!, shared);
      await again.waitForStart(one!.slot, shared.slot);
      await write('p3');
      await arrived('p1', 'p2', 'p3');
      expect(again.failures()).toEqual([]);
      expect(again.log.filter(({ event }) => event === 'slot_warning')).toEqual([]);
    },
    TIMEOUT_MS,
  );
});
