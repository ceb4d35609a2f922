import { ByteWriter } from '../../src/bytes/writer.ts';
import { textSecret } from '../../src/config/secret.ts';
import { convertChange } from '../../src/conversion/convert.ts';
import { resolveRelation, type SourceRelation } from '../../src/conversion/relation.ts';
import { formatLsn } from '../../src/lsn.ts';
import { connectReplication, startCopyBoth } from '../../src/postgres/client/connect.ts';
import { runReplicationCommand } from '../../src/postgres/replication/command.ts';
import { MessageDecoder } from '../../src/postgres/replication/pgoutput.ts';
import { clientConfig, openProducer } from '../support/kafka/open-producer.ts';
import { tablesOf } from '../support/progressor/tables.ts';
import { PASSWORD, ROLE, type TestDatabase, type TestNamespace } from '../support/service/binary-fixture.ts';

/** A slot held by a walsender. */
export interface Hold {
  /** Resolves when the server has sent the first message of a transaction */
  readonly firstChange: Promise<void>;
  release(): Promise<void>;
}

const XLOG_DATA = 0x77; // 'w'
const KEEPALIVE = 0x6b; // 'k'
const KEEPALIVE_BYTES = 18;

/**
 * A stand-in for the Erlang service, which tests cannot start: it sends the same statements to the server and the same
 * records to Kafka. From `src/` it uses the conversion of records, which other tests compare with the Erlang codecs.
 */
export class ErlangService {
  readonly #database: TestDatabase;
  readonly #slot: string;
  readonly #namespaces: readonly TestNamespace[];
  readonly #publications: readonly string[];

  /** @param publications default: one per namespace with its name, as `prepare` creates them */
  constructor(
    database: TestDatabase,
    slot: string,
    namespaces: readonly TestNamespace[],
    publications = namespaces.map(({ namespace }) => namespace),
  ) {
    this.#database = database;
    this.#slot = slot;
    this.#namespaces = namespaces;
    this.#publications = publications;
  }

  get #endpoint() {
    const { server, name } = this.#database;
    const { host, port } = server;
    return { ref: 'db', host, port, database: name, username: ROLE, password: textSecret(PASSWORD), tls: undefined };
  }

  get #publicationNames(): string {
    return this.#publications.map((name) => `"${name}"`).join(', ');
  }

  /** Its start-up: creates missing publications, each with replica identity FULL, then the slot; without a transaction. */
  async prepare(): Promise<void> {
    const { sql } = this.#database;
    for (const { namespace } of this.#namespaces) {
      if ((await sql`SELECT FROM pg_publication WHERE pubname = ${namespace}`).length > 0) continue;
      const { processes, events } = tablesOf(namespace);
      await sql.unsafe(`CREATE PUBLICATION "${namespace}" FOR TABLE "${processes}" , "${events}"`);
      await sql.unsafe(`ALTER TABLE "${processes}" REPLICA IDENTITY FULL`);
    }
    const command = `CREATE_REPLICATION_SLOT ${this.#slot}  LOGICAL pgoutput`;
    await runReplicationCommand(this.#endpoint, { command, applicationName: 'erlang service' }).catch((error) => {
      if (error.code !== '42710') throw error;
    });
  }

  /**
   * Delivers what the slot holds in WAL order and confirms it, except for the last `unconfirmed` transactions, as a process
   * that is killed between delivery and confirmation leaves it.
   * @returns the number of records delivered and not confirmed
   */
  async deliver({ unconfirmed = 0 } = {}): Promise<number> {
    const { sql } = this.#database;
    // The Erlang service reads values as text; binary ones change nothing of what is sent and confirmed.
    const changes = await sql<{ data: Buffer }[]>`
      SELECT data FROM pg_logical_slot_peek_binary_changes(${this.#slot}, NULL, NULL,
        'proto_version', '1', 'publication_names', ${this.#publicationNames}, 'binary', 'true')`;
    const topics = this.#namespaces.flatMap(({ eventsinkTopic, lifecycleTopic }) => [eventsinkTopic, lifecycleTopic]);
    await using kafka = await openProducer(clientConfig([this.#namespaces[0]!.kafka.port]), topics);
    const { producer, tally } = kafka;
    const byName = new Map(this.#namespaces.map((namespace) => [namespace.namespace, namespace]));
    const relations = new Map<number, SourceRelation | undefined>();
    const draft = { key: new ByteWriter(), value: new ByteWriter() };
    const decoder = new MessageDecoder();
    const commits: { readonly endLsn: bigint; readonly recordCount: number }[] = [];
    let commitTimeMicros = 0n;
    let recordCount = 0;
    for (const { data } of changes) {
      const message = decoder.decode(data, 0);
      if (message.tag === 'begin') ({ commitTimeMicros } = message);
      else if (message.tag === 'commit') commits.push({ endLsn: message.endLsn, recordCount });
      else if (message.tag === 'relation') {
        relations.set(message.relationId, resolveRelation(message, new Set(byName.keys())));
      } else if (message.tag === 'insert' || message.tag === 'update' || message.tag === 'delete') {
        const relation = relations.get(message.relationId)!;
        const kind = convertChange(relation, message, commitTimeMicros, draft);
        if (kind === undefined) continue;
        const { eventsinkTopic, lifecycleTopic } = byName.get(relation.namespace)!;
        const topic = producer.queues.topic(kind === 'event' ? eventsinkTopic : lifecycleTopic);
        producer.queues.append(topic, draft.key, draft.value, { ordinal: ++recordCount, tally });
      }
    }
    producer.flush();
    await kafka.waitUntilAcknowledged();
    const last = commits.at(-1 - unconfirmed);
    if (last === undefined) return recordCount;
    await sql`SELECT pg_replication_slot_advance(${this.#slot}, ${formatLsn(last.endLsn)}::text::pg_lsn)`;
    return recordCount - last.recordCount;
  }

  /** Starts to stream from the confirmed LSN of the slot, as it does, and confirms nothing. */
  async hold(): Promise<Hold> {
    const { sql } = this.#database;
    const [row] = await sql`
      SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = ${this.#slot}`;
    const replication = connectReplication(this.#endpoint, { applicationName: 'erlang service' });
    const stream = await startCopyBoth(
      replication,
      `START_REPLICATION SLOT ${this.#slot} LOGICAL ${row!.lsn} ` +
        `(proto_version '1', publication_names '${this.#publicationNames}')`,
    );
    const firstChange = Promise.withResolvers<void>();
    stream.on('data', (frames: Buffer) => {
      let at = 0;
      while (frames[at] === KEEPALIVE) at += KEEPALIVE_BYTES;
      if (frames[at] === XLOG_DATA) firstChange.resolve();
    });
    return { firstChange: firstChange.promise, release: () => replication.end({ timeout: 0 }) };
  }

  /** Its publications and replica identities with row versions, as text: equal texts mean that nothing has changed them. */
  async belongings(): Promise<string> {
    const { sql } = this.#database;
    const names = this.#namespaces.map(({ namespace }) => namespace);
    const publications = await sql`
      SELECT p.xmin::text AS version, to_jsonb(p) AS publication, obj_description(p.oid, 'pg_publication') AS comment,
        (SELECT jsonb_agg(to_jsonb(r) || jsonb_build_object('version', r.xmin::text) ORDER BY r.oid)
          FROM pg_publication_rel r WHERE r.prpubid = p.oid) AS tables
      FROM pg_publication p WHERE p.pubname IN ${sql(names)} ORDER BY p.pubname`;
    const identities = await sql`
      SELECT relname, relreplident FROM pg_class
      WHERE relname IN ${sql(names.map((name) => tablesOf(name).processes))} ORDER BY relname`;
    return JSON.stringify([publications, identities], undefined, 2);
  }
}
