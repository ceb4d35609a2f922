/**
 * Rules that involve several keys. They read the unchecked tree, so a wrong type in one place does not hide a wrong
 * reference in another. Values of a wrong type are skipped: the schema has reported them.
 */

import { POSTGRES_PORT, parseAddress } from './address.ts';
import { formatPath, type PathStep } from './config-error.ts';
import { didYouMean } from './suggest.ts';

/** Receives a mistake: the path, the message, and whether it is at the key or the value. */
export type ReportMistake = (steps: readonly PathStep[], message: string, at?: 'key' | 'value') => void;

/** Reports dangling references, conflicts between slots, namespaces and topics, and keys without their counterpart. */
export function crossCheck(tree: unknown, report: ReportMistake): void {
  const databases = field(tree, 'databases');
  const kafkaClients = field(tree, 'kafka_clients');
  const streams = field(tree, 'streams');
  checkAddresses(databases, report);
  checkCredentials(databases, kafkaClients, report);
  checkReferences(streams, databases, kafkaClients, report);
  checkSlots(streams, databases, report);
  checkSlotSettings(field(tree, 'slots'), streams, report);
  checkParking(streams, report);
  checkColumns(streams, report);
}

function checkAddresses(databases: unknown, report: ReportMistake): void {
  for (const [ref, database] of entriesOf(databases)) {
    if (!isObject(database)) continue;
    const steps = ['databases', ref];
    const hasHosts = 'hosts' in database;
    if (!('host' in database)) {
      if (!hasHosts) report([...steps, 'host'], 'is missing; set host or hosts');
    } else if (hasHosts) report([...steps, 'hosts'], 'replaces host; set only one of them', 'key');
    if (hasHosts && 'port' in database)
      report([...steps, 'port'], 'is for host; with hosts, write the ports in the list', 'key');
    const known = new Set<string>();
    for (const [index, text] of listOf(field(database, 'hosts')).entries()) {
      for (const server of serversOf({ hosts: [text] })) {
        if (known.has(server)) report([...steps, 'hosts', index], 'is given twice');
        known.add(server);
      }
    }
  }
}

function checkCredentials(databases: unknown, kafkaClients: unknown, report: ReportMistake): void {
  for (const [ref, database] of entriesOf(databases)) {
    const steps = ['databases', ref];
    checkKeyPair(field(database, 'tls'), [...steps, 'tls'], report);
    const hasCertificate = field(field(database, 'tls'), 'cert') !== undefined;
    if (isObject(database) && !('password' in database) && !hasCertificate) {
      report([...steps, 'password'], 'is missing; set password or tls.cert');
    }
  }
  for (const [name, client] of entriesOf(kafkaClients)) {
    checkKeyPair(field(client, 'tls'), ['kafka_clients', name, 'tls'], report);
  }
}

function checkKeyPair(tls: unknown, steps: readonly PathStep[], report: ReportMistake): void {
  if (!isObject(tls)) return;
  if ('cert' in tls && !('key' in tls)) report([...steps, 'key'], 'is missing; required by cert');
  if ('key' in tls && !('cert' in tls)) report([...steps, 'cert'], 'is missing; required by key');
}

function checkReferences(streams: unknown, databases: unknown, kafkaClients: unknown, report: ReportMistake): void {
  for (const [ref, slots] of entriesOf(streams)) {
    if (databases instanceof Map && !databases.has(ref)) {
      report(['streams', ref], `no such entry in databases${didYouMean(ref, databases.keys())}`, 'key');
    }
    for (const [slot, namespaces] of entriesOf(slots)) {
      for (const [name, namespace] of entriesOf(namespaces)) {
        const client = field(namespace, 'kafka_client');
        if (typeof client === 'string' && client !== '' && kafkaClients instanceof Map && !kafkaClients.has(client)) {
          const message = `no such entry in kafka_clients${didYouMean(client, kafkaClients.keys())}`;
          report(['streams', ref, slot, name, 'kafka_client'], message);
        }
      }
    }
  }
}

/**
 * Slot names are unique per server; publications (one per namespace) are shared by the slots of a database. Several db_refs may lead to the same
 * server or database: two of them do when they share an address.
 */
function checkSlots(streams: unknown, databases: unknown, report: ReportMistake): void {
  const slotOwners = new Map<string, readonly PathStep[]>();
  const namespaces = new Map<string, SharedNamespace[]>();
  for (const [ref, slots] of entriesOf(streams)) {
    const database = databases instanceof Map ? databases.get(ref) : undefined;
    const known = serversOf(database);
    const servers = known.length === 0 ? [`only ${ref}`] : known;
    const databaseName = field(database, 'database') ?? `only ${ref}`;
    for (const [slot, entries] of entriesOf(slots)) {
      const slotSteps = ['streams', ref, slot];
      const slotKeys = servers.map((server) => JSON.stringify([server, slot]));
      const slotOwner = claim(slotOwners, slotKeys, slotSteps);
      if (slotOwner !== undefined) {
        report(slotSteps, `slot is already used by ${formatPath(slotOwner.slice(0, 2))} on the same server`, 'key');
      }
      for (const [name, entry] of entriesOf(entries)) {
        const shared = { steps: [...slotSteps, name], entry };
        const keys = servers.map((server) => JSON.stringify([server, databaseName, name]));
        const others = new Set(keys.flatMap((key) => namespaces.get(key) ?? []));
        for (const other of others) checkSharedNamespace(shared, other, report);
        for (const key of keys) namespaces.set(key, [...(namespaces.get(key) ?? []), shared]);
      }
    }
  }
}

/** A namespace of one slot that other slots of its database may have as well. */
interface SharedNamespace {
  readonly steps: readonly PathStep[];
  readonly entry: unknown;
}

/** Two slots may have a namespace: they share its publication, and each delivers all of its rows, so not to one topic. */
function checkSharedNamespace(one: SharedNamespace, other: SharedNamespace, report: ReportMistake): void {
  const otherPath = formatPath(other.steps);
  const isSame = (key: string) => field(one.entry, key) === field(other.entry, key);
  for (const key of ['eventsink_topic', 'lifecycle_topic']) {
    if (field(one.entry, key) === undefined || !isSame(key) || !isSame('kafka_client')) continue;
    report([...one.steps, key], `is the topic of ${otherPath} already, which would deliver every record a second time`);
  }
  for (const [key, byDefault] of [
    ['replica_identity', 'full'],
    ['publish_columns', 'all'],
  ] as const) {
    if ((field(one.entry, key) ?? byDefault) === (field(other.entry, key) ?? byDefault)) continue;
    report(one.steps, `needs the ${key} of ${otherPath}: both slots use one publication`, 'key');
  }
}

/** Claims every key that is free; returns the owner of the first that is not. */
function claim<Owner>(owners: Map<string, Owner>, keys: readonly string[], claimant: Owner): Owner | undefined {
  const owner = keys.map((key) => owners.get(key)).find((found) => found !== undefined);
  for (const key of keys) if (!owners.has(key)) owners.set(key, claimant);
  return owner;
}

/** Identifies servers: one text for each well-formed address of a database. */
function serversOf(database: unknown): string[] {
  const host = field(database, 'host');
  const port = field(database, 'port') ?? POSTGRES_PORT;
  const listed = listOf(field(database, 'hosts')).map((text) =>
    typeof text === 'string' ? parseAddress(text, POSTGRES_PORT) : undefined,
  );
  const single = typeof host === 'string' && typeof port === 'number' ? { host, port } : undefined;
  return [single, ...listed].flatMap((address) =>
    address === undefined ? [] : [`${address.host.toLowerCase().replace(/\.$/, '')} ${address.port}`],
  );
}

/** Settings of a slot that is not streamed are a typo that would go unnoticed. */
function checkSlotSettings(slots: unknown, streams: unknown, report: ReportMistake): void {
  if (!(streams instanceof Map)) return;
  for (const [ref, settings] of entriesOf(slots)) {
    const streamed: unknown = streams.get(ref);
    if (!streams.has(ref)) {
      report(['slots', ref], `no such entry in streams${didYouMean(ref, streams.keys())}`, 'key');
    }
    if (!(streamed instanceof Map)) continue;
    for (const [slot] of entriesOf(settings)) {
      if (streamed.has(slot)) continue;
      const message = `no such slot in ${formatPath(['streams', ref])}${didYouMean(slot, streamed.keys())}`;
      report(['slots', ref, slot], message, 'key');
    }
  }
}

/** Parked rows have a format of their own, which consumers of other topics cannot read. */
function checkParking(streams: unknown, report: ReportMistake): void {
  const namespaces = namespacesOf(streams);
  const topicOf = (namespace: unknown, key: string) => {
    const topic = field(namespace, key);
    return typeof topic === 'string' ? JSON.stringify([field(namespace, 'kafka_client'), topic]) : undefined;
  };
  const recordTopics = new Map<string | undefined, string>();
  for (const { steps, namespace } of namespaces) {
    for (const key of ['eventsink_topic', 'lifecycle_topic']) {
      recordTopics.set(topicOf(namespace, key), formatPath([...steps, key]));
    }
  }
  recordTopics.delete(undefined);
  for (const { steps, namespace } of namespaces) {
    if (!isObject(namespace)) continue;
    const parkingSteps = [...steps, 'parking_topic'];
    const { on_invalid: onInvalid = 'stop' } = namespace;
    const isGiven = 'parking_topic' in namespace;
    if (onInvalid === 'park' && !isGiven) report(parkingSteps, 'is missing; required by on_invalid: park');
    if (onInvalid === 'stop' && isGiven) report(parkingSteps, 'is only allowed with on_invalid: park', 'key');
    const other = recordTopics.get(topicOf(namespace, 'parking_topic'));
    if (other !== undefined) report(parkingSteps, `must be a topic of its own; this one is also ${other}`);
  }
}

/** PostgreSQL rejects every update and delete of a table with a column list while its replica identity is FULL. */
function checkColumns(streams: unknown, report: ReportMistake): void {
  for (const { steps, namespace } of namespacesOf(streams)) {
    if (field(namespace, 'publish_columns') !== 'needed') continue;
    if (field(namespace, 'replica_identity') === 'status_index') continue;
    report([...steps, 'publish_columns'], 'needed requires replica_identity: status_index');
  }
}

function namespacesOf(
  streams: unknown,
): readonly { readonly steps: readonly PathStep[]; readonly namespace: unknown }[] {
  return [...entriesOf(streams)].flatMap(([ref, slots]) =>
    [...entriesOf(slots)].flatMap(([slot, entries]) =>
      [...entriesOf(entries)].map(([name, namespace]) => ({ steps: ['streams', ref, slot, name], namespace })),
    ),
  );
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function entriesOf(value: unknown): Iterable<[string, unknown]> {
  return value instanceof Map ? value : [];
}

function field(value: unknown, key: string): unknown {
  return isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Map);
}

/** `${NAME}`, and `{{ name }}` of Helm, Ansible and Jinja: left in a file, they are text like any other. */
const TEMPLATE = /\$\{[^}\s]+\}|\{\{.*?\}\}/;

/** The places of all texts of a configuration that look like a template that nothing has filled in. */
export function findTemplates(tree: unknown, steps: readonly PathStep[] = []): (readonly PathStep[])[] {
  if (typeof tree === 'string') return TEMPLATE.test(tree) ? [steps] : [];
  if (typeof tree !== 'object' || tree === null) return [];
  const entries: Iterable<[PathStep, unknown]> = Array.isArray(tree)
    ? tree.entries()
    : tree instanceof Map
      ? tree
      : Object.entries(tree);
  return Array.from(entries, ([step, value]) => findTemplates(value, [...steps, step])).flat();
}
