import { expect, test } from 'bun:test';
import { tablesOf } from '../../support/progressor/tables.ts';
import { type ConnectorTarget, connectorSettings, connectorTopics, workerSettings } from './settings.ts';

const TARGET: ConnectorTarget = {
  host: '127.0.0.1',
  port: 5432,
  database: 'bench',
  user: 'reader',
  password: 'secret',
  slot: 'slot_1',
  publication: 'default/default',
  tables: tablesOf('default/default'),
};

test('the connector uses an existing slot and publication and creates nothing on the server', () => {
  expect(connectorSettings(TARGET)).toMatchObject({
    'slot.name': 'slot_1',
    'publication.name': 'default/default',
    'publication.autocreate.mode': 'disabled',
    'snapshot.mode': 'no_data',
    'topic.prefix': 'bench_slot_1',
  });
});

test('each table has a topic with a valid name', () => {
  expect(connectorTopics(TARGET)).toEqual({
    events: 'bench_slot_1.public.default_default_events',
    processes: 'bench_slot_1.public.default_default_processes',
  });
});

test('the patterns of the connector match only their table, for any characters in its name', () => {
  const settings = connectorSettings({ ...TARGET, tables: tablesOf('a.b+(c)') });
  const tables = String(settings['table.include.list']).split(',');
  const matches = (name: string): boolean => tables.some((pattern) => new RegExp(`^(?:${pattern})$`).test(name));
  expect(['events', 'processes', 'tasks'].map((kind) => matches(`public.a.b+(c)_${kind}`))).toEqual([
    true,
    true,
    false,
  ]);
  expect(matches('public.axbb(c)_events')).toBe(false);

  const excluded = new RegExp(`^(?:${settings['column.exclude.list']})$`);
  expect(excluded.test('public.a.b+(c)_processes.aux_state')).toBe(true);
  expect(excluded.test('public.a.b+(c)_processes.status')).toBe(false);
});

test('the producer has the same guarantees as the service', () => {
  const settings = workerSettings({ bootstrap: '127.0.0.1:9092', restPort: 8083, offsetsFile: '/tmp/offsets' });
  expect(settings).toMatchObject({
    'bootstrap.servers': '127.0.0.1:9092',
    listeners: 'http://127.0.0.1:8083',
    'producer.acks': 'all',
    'producer.enable.idempotence': 'true',
    'producer.compression.type': 'none',
  });
});
