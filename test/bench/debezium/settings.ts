/** Settings of Kafka Connect and Debezium's connector: tuning, sources and targets. */
import type { ProgressorTables } from '../../support/progressor/tables.ts';

/** Settings of a properties file. */
export type Properties = Readonly<Record<string, string>>;

/** Java arguments. On two cores the parallel collector takes a fifth less CPU than G1. */
export const JAVA_ARGUMENTS: readonly string[] = ['-Xms1g', '-Xmx1g', '-XX:+UseParallelGC'];

/** Tuning of the worker: throughput, with the same delivery guarantees as the service. */
export const WORKER_TUNING: Properties = {
  'key.converter': 'org.apache.kafka.connect.json.JsonConverter',
  'key.converter.schemas.enable': 'false',
  'value.converter': 'org.apache.kafka.connect.json.JsonConverter',
  'value.converter.schemas.enable': 'false',
  'offset.flush.interval.ms': '1000',
  // Connect's own default is one request in flight without idempotence.
  'producer.acks': 'all',
  'producer.enable.idempotence': 'true',
  'producer.max.in.flight.requests.per.connection': '5',
  'producer.compression.type': 'none',
  'producer.linger.ms': '5',
  'producer.batch.size': '262144',
  'producer.buffer.memory': '67108864',
};

/** Tuning of the connector. */
export const CONNECTOR_TUNING: Properties = {
  'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
  'tasks.max': '1',
  'plugin.name': 'pgoutput',
  'publication.autocreate.mode': 'disabled',
  'snapshot.mode': 'no_data',
  'binary.handling.mode': 'bytes',
  // Larger ones gain no speed and take memory.
  'max.batch.size': '4096',
  'max.queue.size': '16384',
  // An update that changes only omitted columns has no record, as with the service.
  'skip.messages.without.change': 'true',
  // A batch is waited for so long until it is full.
  'poll.interval.ms': '10',
};

/** What one reading is about. */
export interface ConnectorTarget {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly slot: string;
  readonly publication: string;
  readonly tables: ProgressorTables;
}

/** The topics that the connector writes to. */
export interface ConnectorTopics {
  readonly events: string;
  readonly processes: string;
}

/** The connector makes a topic's name from prefix, schema and table, and puts `_` where Kafka takes no such character. */
export function connectorTopics({ database, slot, tables }: ConnectorTarget): ConnectorTopics {
  const topic = (table: string): string =>
    `${prefixOf({ database, slot })}.public.${table}`.replaceAll(/[^a-zA-Z0-9._-]/g, '_');
  return { events: topic(tables.events), processes: topic(tables.processes) };
}

/** Settings of a worker that keeps its offsets in a file and has its REST interface on a port of 127.0.0.1. */
export function workerSettings(place: {
  readonly bootstrap: string;
  readonly restPort: number;
  readonly offsetsFile: string;
}): Properties {
  return {
    ...WORKER_TUNING,
    'bootstrap.servers': place.bootstrap,
    listeners: `http://127.0.0.1:${place.restPort}`,
    'offset.storage.file.filename': place.offsetsFile,
    // All plugins are on the class path and say so themselves: looking into every jar would make the start slower.
    'plugin.discovery': 'service_load',
  };
}

/** Settings of the connector for one slot. Records are keyed by process, as the service does it. */
export function connectorSettings(target: ConnectorTarget): Properties {
  const { processes, events } = target.tables;
  return {
    ...CONNECTOR_TUNING,
    name: target.slot,
    'topic.prefix': prefixOf(target),
    'database.hostname': target.host,
    'database.port': String(target.port),
    'database.dbname': target.database,
    'database.user': target.user,
    'database.password': target.password,
    'slot.name': target.slot,
    'publication.name': target.publication,
    'table.include.list': [processes, events].map((table) => pattern(table)).join(','),
    'message.key.columns': `${pattern(events)}:process_id`,
    'column.exclude.list': `${pattern(processes)}\\.aux_state`,
  };
}

function prefixOf({ database, slot }: Pick<ConnectorTarget, 'database' | 'slot'>): string {
  return `${database}_${slot}`;
}

/** The connector takes tables as regular expressions. */
function pattern(table: string): string {
  return `public\\.${table.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')}`;
}
