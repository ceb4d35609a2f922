/** Event triggers run for every DDL statement of the service. Real servers. */
import { describe, expect, test } from 'bun:test';
import { useKafka, usePostgres } from '../../support/service/file-servers.ts';
import {
  openStreamFixture,
  type StreamFixture,
  type StreamFixtureOptions,
  writeProcess,
} from '../../support/service/stream-fixture.ts';

const NS = 'orders';
const TIMEOUT_MS = 120_000;

const kafka = useKafka();

/** An audit trigger as tutorials show it: its table has no schema. */
const AUDIT = `
  CREATE TABLE public.ddl_history (at timestamptz, tag text);
  CREATE FUNCTION public.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO ddl_history VALUES (now(), tg_tag); END$$;
  CREATE EVENT TRIGGER audit_ddl ON ddl_command_end EXECUTE FUNCTION public.log_ddl();`;

/** A trigger that refuses one kind of statement. */
const refuse = (tag: string) => `
  CREATE FUNCTION public.no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'no DDL by applications'; END$$;
  CREATE EVENT TRIGGER no_ddl ON ddl_command_start WHEN TAG IN ('${tag}') EXECUTE FUNCTION public.no_ddl();`;

const dropTriggers = (fixture: StreamFixture) =>
  fixture.sql.unsafe('DROP EVENT TRIGGER IF EXISTS audit_ddl; DROP EVENT TRIGGER IF EXISTS no_ddl');

describe.each([14, 18] as const)('on PostgreSQL %d', (major) => {
  const postgres = usePostgres(major);
  const openFixture = (options: Partial<StreamFixtureOptions> = {}) =>
    openStreamFixture({ postgres: postgres(), kafka: kafka(), slots: { one: [NS] }, ...options });

  test(
    'an audit trigger whose table has no schema logs our statements, and stops nothing',
    async () => {
      await using fixture = await openFixture();
      await fixture.sql.unsafe(AUDIT);
      const service = fixture.start();
      await fixture.confirmed('one');
      const record = await writeProcess(fixture, NS, 'p');
      await fixture.confirmed('one');
      await service.stop();
      expect(await fixture.emitted(NS)).toEqual([record]);
      expect(service.failures()).toEqual([]);
      const tags = await fixture.sql`SELECT DISTINCT tag FROM public.ddl_history ORDER BY tag`;
      expect(tags.map(({ tag }) => tag)).toEqual(expect.arrayContaining(['COMMENT', 'CREATE PUBLICATION']));
      await dropTriggers(fixture);
    },
    TIMEOUT_MS,
  );

  test(
    'a trigger that refuses COMMENT is named by one warning while the stream goes on without its ledger',
    async () => {
      await using fixture = await openFixture();
      // Publication and slot exist: the service has nothing else to create.
      const first = fixture.start();
      await fixture.confirmed('one');
      await first.stop();
      await fixture.sql.unsafe(refuse('COMMENT'));
      const service = fixture.start();
      const expected = [await writeProcess(fixture, NS, 'p')];
      await fixture.confirmed('one');
      const { pid } = (await fixture.walsender('one'))!;
      await fixture.sql`SELECT pg_terminate_backend(${pid})`;
      await service.waitForFailure(fixture.slot('one'), 1);
      expected.push(await writeProcess(fixture, NS, 'q'));
      await fixture.confirmed('one');
      const warnings = () => service.log.filter(({ event }) => event === 'slot_warning');
      expect(warnings()).toMatchObject([
        {
          code: 'ledger_refused',
          msg: expect.stringContaining('P0001'),
          advice: expect.stringContaining('no_ddl (public.no_ddl)'),
        },
      ]);
      await dropTriggers(fixture);
      await fixture.sql`SELECT pg_terminate_backend(${(await fixture.walsender('one'))!.pid})`;
      await service.waitForLog('the end', ({ event }) => event === 'slot_warning_ended');
      await fixture.confirmed('one');
      expect(await fixture.emitted(NS)).toEqual(expected);
    },
    TIMEOUT_MS,
  );

  test(
    'a trigger that refuses a publication is named by the error, with the statements to run',
    async () => {
      await using fixture = await openFixture();
      await fixture.sql.unsafe(refuse('CREATE PUBLICATION'));
      const service = fixture.start();
      expect(await service.waitForFailure(fixture.slot('one'), 2)).toMatchObject({
        name: 'SetupError',
        code: 'event_trigger',
        message: expect.stringContaining('no_ddl (public.no_ddl)'),
        advice: expect.stringContaining('CREATE PUBLICATION "orders" FOR TABLE'),
      });
      await dropTriggers(fixture);
      await fixture.confirmed('one');
    },
    TIMEOUT_MS,
  );
});
