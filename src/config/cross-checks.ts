/**
 * Rules that tie several keys together. They look at the tree as it was read, not at the checked one, so that a wrong
 * type in one place does not hide a wrong reference in another: whatever is not as expected is stepped over here,
 * because the schema has reported it.
 */

import { formatPath, type PathStep } from './config-error.ts';
import { didYouMean } from './suggest.ts';

/** Takes a mistake: where, whether at the key or the value, and what. */
export type ReportMistake = (steps: readonly PathStep[], message: string, at?: 'key' | 'value') => void;

const DEFAULT_PORT = 5432;

/** Reports references that point nowhere, slots and namespaces that get in each other's way, and halves of pairs. */
export function crossCheck(tree: unknown, report: ReportMistake): void {
  const databases = field(tree, 'databases');
  const kafkaClients = field(tree, 'kafka_clients');
  checkCredentials(databases, kafkaClients, report);
  checkReferences(field(tree, 'streams'), databases, kafkaClients, report);
  checkSlots(field(tree, 'streams'), databases, report);
}

function checkCredentials(databases: unknown, kafkaClients: unknown, report: ReportMistake): void {
  for (const [ref, database] of entriesOf(databases)) {
    const steps = ['databases', ref];
    checkKeyPair(field(database, 'tls'), [...steps, 'tls'], report);
    const hasCertificate = field(field(database, 'tls'), 'cert') !== undefined;
    if (isObject(database) && !('password' in database) && !hasCertificate) {
      report([...steps, 'password'], 'is missing; only tls.cert can stand in for it');
    }
  }
  for (const [name, client] of entriesOf(kafkaClients)) {
    checkKeyPair(field(client, 'tls'), ['kafka_clients', name, 'tls'], report);
  }
}

function checkKeyPair(tls: unknown, steps: readonly PathStep[], report: ReportMistake): void {
  if (!isObject(tls)) return;
  if ('cert' in tls && !('key' in tls)) report([...steps, 'key'], 'is missing; cert needs it');
  if ('key' in tls && !('cert' in tls)) report([...steps, 'cert'], 'is missing; key needs it');
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
 * Slot names are per server, publications (one per namespace) per database; several db_refs may lead to the same server
 * or database.
 */
function checkSlots(streams: unknown, databases: unknown, report: ReportMistake): void {
  const slotOwners = new Map<string, readonly PathStep[]>();
  const namespaceOwners = new Map<string, readonly PathStep[]>();
  for (const [ref, slots] of entriesOf(streams)) {
    const database = databases instanceof Map ? databases.get(ref) : undefined;
    const server = serverOf(database) ?? `only ${ref}`;
    const databaseName = field(database, 'database') ?? `only ${ref}`;
    for (const [slot, namespaces] of entriesOf(slots)) {
      const slotSteps = ['streams', ref, slot];
      const slotOwner = slotOwners.get(JSON.stringify([server, slot]));
      if (slotOwner === undefined) slotOwners.set(JSON.stringify([server, slot]), slotSteps);
      else report(slotSteps, `slot is already used by ${formatPath(slotOwner.slice(0, 2))} on the same server`, 'key');
      for (const [namespace] of entriesOf(namespaces)) {
        const key = JSON.stringify([server, databaseName, namespace]);
        const owner = namespaceOwners.get(key);
        if (owner === undefined) namespaceOwners.set(key, slotSteps);
        else {
          const message = `namespace is already in ${formatPath(owner)}, a slot of the same database`;
          report([...slotSteps, namespace], message, 'key');
        }
      }
    }
  }
}

/** What tells two servers apart; undefined when host or port are not to be relied on. */
function serverOf(database: unknown): string | undefined {
  const host = field(database, 'host');
  const port = field(database, 'port') ?? DEFAULT_PORT;
  if (typeof host !== 'string' || typeof port !== 'number') return undefined;
  return `${host.toLowerCase().replace(/\.$/, '')} ${port}`;
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
