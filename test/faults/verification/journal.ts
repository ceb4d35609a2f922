import type { Sql } from 'postgres';
import { eventContent, lifecycleContent } from '../../support/codecs/record-text.ts';
import type { ExpectedRecord } from '../../support/codecs/verdict.ts';
import { decodePayload } from './etf-reader.ts';

/** A namespace and the topics of its records. */
export interface JournalNamespace {
  readonly namespace: string;
  readonly eventsinkTopic: string;
  readonly lifecycleTopic: string;
}

/** A record that a committed change must lead to, and the end LSN of its transaction's commit. */
export interface CommittedRecord extends ExpectedRecord {
  readonly endLsn: bigint;
}

/** Seconds from 1970 to PostgreSQL's epoch, 2000-01-01 */
const POSTGRES_EPOCH_SECONDS = 946_684_800n;

const JOURNAL = `
  CREATE TABLE journal (
    id BIGSERIAL PRIMARY KEY,
    xid XID NOT NULL DEFAULT pg_current_xact_id()::xid,
    namespace TEXT NOT NULL,
    process_id TEXT NOT NULL,
    change TEXT NOT NULL,
    reason TEXT,
    event_id INT,
    "timestamp" TIMESTAMPTZ,
    metadata JSONB,
    payload BYTEA);
  CREATE FUNCTION journal_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO journal (namespace, process_id, change, event_id, "timestamp", metadata, payload)
    VALUES (TG_ARGV[0], NEW.process_id, 'event', NEW.event_id, NEW."timestamp", NEW.metadata, NEW.payload);
    RETURN NULL;
  END $$;
  CREATE FUNCTION journal_process() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN
      INSERT INTO journal (namespace, process_id, change) VALUES (TG_ARGV[0], NEW.process_id, 'created');
    ELSIF TG_OP = 'DELETE' THEN
      INSERT INTO journal (namespace, process_id, change) VALUES (TG_ARGV[0], OLD.process_id, 'removed');
    ELSIF OLD.status::text IN ('init', 'running') AND NEW.status = 'error' THEN
      INSERT INTO journal (namespace, process_id, change, reason)
      VALUES (TG_ARGV[0], NEW.process_id, 'failed', coalesce(NEW.detail, 'unknown'));
    ELSIF OLD.status = 'error' AND NEW.status = 'running' THEN
      INSERT INTO journal (namespace, process_id, change) VALUES (TG_ARGV[0], NEW.process_id, 'working');
    END IF;
    RETURN NULL;
  END $$;
  CREATE PUBLICATION oracle FOR TABLE journal`;

interface Commit {
  readonly order: number;
  readonly endLsn: bigint;
  /** Whole seconds since 1970 */
  readonly seconds: number;
}

interface JournalRow {
  readonly xid: string;
  readonly namespace: string;
  readonly process_id: string;
  readonly change: 'event' | 'created' | 'removed' | 'working' | 'failed';
  readonly reason: string | null;
  readonly event_id: number | null;
  readonly seconds: string | null;
  readonly metadata: string | null;
  readonly payload: Buffer | null;
}

/**
 * What a run has committed, recorded by the database itself. Triggers log every change of a namespace's tables in the same
 * transaction: rolled back changes are not in it, and an unknown outcome of a COMMIT does not matter. A second logical slot,
 * the oracle, gives order, end LSN and time of each commit. It shares no code with the service.
 */
export class Journal {
  readonly #sql: Sql;
  readonly #slot: string;
  readonly #namespaces: ReadonlyMap<string, JournalNamespace>;
  /** By transaction id, as text */
  readonly #commits = new Map<string, Commit>();

  private constructor(sql: Sql, slot: string, namespaces: readonly JournalNamespace[]) {
    this.#sql = sql;
    this.#slot = slot;
    this.#namespaces = new Map(namespaces.map((namespace) => [namespace.namespace, namespace]));
  }

  /** Creates the journal for namespaces whose tables exist and are empty. */
  static async create(sql: Sql, slot: string, namespaces: readonly JournalNamespace[]): Promise<Journal> {
    await sql.unsafe(JOURNAL);
    for (const { namespace } of namespaces) {
      const argument = namespace.replaceAll("'", "''");
      await sql.unsafe(`
        CREATE TRIGGER journal AFTER INSERT OR UPDATE OR DELETE ON ${sqlName(`${namespace}_processes`)}
          FOR EACH ROW EXECUTE FUNCTION journal_process('${argument}');
        CREATE TRIGGER journal AFTER INSERT ON ${sqlName(`${namespace}_events`)}
          FOR EACH ROW EXECUTE FUNCTION journal_event('${argument}')`);
    }
    await sql`SELECT pg_create_logical_replication_slot(${slot}, 'pgoutput')`;
    return new Journal(sql, slot, namespaces);
  }

  /**
   * Reads new commits from the oracle's slot, which releases their WAL. Commits that are read again, because a crash took
   * the slot back to its saved position, are ignored.
   */
  async drain(): Promise<void> {
    // Commit: Byte1('C') Int8(flags) Int64(commit LSN) Int64(end LSN) Int64(microseconds since 2000)
    const commits = await this.#sql<{ xid: string; end_lsn: string; micros: string }[]>`
      SELECT xid::text, encode(substr(data, 11, 8), 'hex') AS end_lsn, encode(substr(data, 19, 8), 'hex') AS micros
      FROM pg_logical_slot_get_binary_changes(${this.#slot}, NULL, NULL,
        'proto_version', '1', 'publication_names', 'oracle')
      WHERE get_byte(data, 0) = 67`;
    for (const { xid, end_lsn, micros } of commits) {
      if (this.#commits.has(xid)) continue;
      const seconds = Number(BigInt(`0x${micros}`) / 1_000_000n + POSTGRES_EPOCH_SECONDS);
      this.#commits.set(xid, { order: this.#commits.size, endLsn: BigInt(`0x${end_lsn}`), seconds });
    }
  }

  /** The records of all committed changes, in WAL order. */
  async read(): Promise<CommittedRecord[]> {
    await this.drain();
    const rows = await this.#sql<JournalRow[]>`
      SELECT xid::text, namespace, process_id, change, reason, event_id,
        floor(extract(epoch FROM "timestamp"))::text AS seconds, metadata::text AS metadata, payload
      FROM journal ORDER BY id`;
    const placed = rows.map((row) => {
      const commit = this.#commits.get(row.xid);
      if (commit === undefined) throw new Error(`The oracle knows no commit of transaction ${row.xid}`);
      return { row, commit };
    });
    // The sort is stable: within a transaction the order of the journal stays.
    placed.sort((a, b) => a.commit.order - b.commit.order);
    return placed.map(({ row, commit }) => this.#expected(row, commit));
  }

  #expected(row: JournalRow, { endLsn, seconds }: Commit): CommittedRecord {
    const { namespace, process_id: processId, change } = row;
    const { eventsinkTopic, lifecycleTopic } = this.#namespaces.get(namespace) as JournalNamespace;
    const key = `${namespace} ${processId}`;
    if (change === 'event') {
      const at = row.seconds === null ? seconds : Number(row.seconds);
      const content = eventContent({
        namespace,
        processId,
        eventId: row.event_id as number,
        formatVersion: formatVersion(row.metadata),
        data: decodePayload(row.payload as Buffer),
      });
      return { topic: eventsinkTopic, key, content, createdAt: { from: at, to: at }, endLsn };
    }
    const content = lifecycleContent({ namespace, processId, change, reason: row.reason ?? undefined });
    return { topic: lifecycleTopic, key, content, createdAt: { from: seconds, to: seconds }, endLsn };
  }
}

function formatVersion(metadata: string | null): number | undefined {
  return metadata === null ? undefined : (JSON.parse(metadata)?.format_version ?? undefined);
}

function sqlName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
