import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeConfiguration } from '../../../src/config/schema.ts';

describe('describeConfiguration', () => {
  const keys = describeConfiguration();

  test('gives every key its path, type, default and meaning', () => {
    expect(keys.find(({ path }) => path === 'databases.<db_ref>.port')).toEqual({
      path: 'databases.<db_ref>.port',
      type: 'whole number',
      default: '`5432`',
      meaning: 'TCP port of the server; only with `host`',
    });
    for (const { path, type, default: fallback, meaning } of keys) {
      expect([path, type, fallback, meaning].filter((text) => text === '' || text.includes('undefined'))).toEqual([]);
    }
    expect(new Set(keys.map(({ path }) => path)).size).toBe(keys.length);
  });

  test('lists the keys of every level, in order', () => {
    expect(keys.map(({ path }) => path)).toEqual([
      'databases',
      ...['host', 'port', 'hosts', 'database', 'username', 'password', 'tls'].map((key) => `databases.<db_ref>.${key}`),
      ...['mode', 'ca', 'cert', 'key'].map((key) => `databases.<db_ref>.tls.${key}`),
      'kafka_clients',
      ...['brokers', 'client_id', 'tls'].map((key) => `kafka_clients.<kafka_client>.${key}`),
      ...['ca', 'cert', 'key', 'server_name'].map((key) => `kafka_clients.<kafka_client>.tls.${key}`),
      'kafka_clients.<kafka_client>.sasl',
      ...['mechanism', 'username', 'password'].map((key) => `kafka_clients.<kafka_client>.sasl.${key}`),
      ...[
        'compression',
        'accept_cluster_id',
        'connect_timeout',
        'request_timeout',
        'max_request_bytes',
        'metadata_max_age',
      ].map((key) => `kafka_clients.<kafka_client>.${key}`),
      'streams',
      ...['kafka_client', 'eventsink_topic', 'lifecycle_topic'].map(
        (key) => `streams.<db_ref>.<slot>.<namespace>.${key}`,
      ),
      ...['replica_identity', 'publish_columns', 'on_missing_old_tuple', 'on_invalid', 'parking_topic'].map(
        (key) => `streams.<db_ref>.<slot>.<namespace>.${key}`,
      ),
      ...['slots', 'slots.<db_ref>.<slot>.failover', 'slots.<db_ref>.<slot>.accept_loss_after'],
      ...['resend_timeout', 'max_retries', 'reconnect_timeout', 'shutdown_timeout', 'max_row_bytes'],
      ...['http', 'http.host', 'http.port', 'http.in_flight_limit', 'log', 'log.level', 'log.format'],
    ]);
  });

  test('gives every time and size its unit', () => {
    for (const { path, unit } of keys) {
      const due = /(_timeout|_max_age|_limit)$/.test(path) ? 'ms' : path.endsWith('_bytes') ? 'bytes' : undefined;
      expect([path, unit]).toEqual([path, due]);
    }
  });

  test('names no key that the example leaves out', () => {
    const example = readFileSync(join(import.meta.dir, '../../../config/cdc-notifier.example.yaml'), 'utf8');
    const missing = keys.map(({ path }) => path.split('.').at(-1) ?? '').filter((key) => !example.includes(`${key}:`));
    expect(missing).toEqual([]);
  });
});
