import { quoteIdentifier, quoteLiteral, quoteTable } from '../client/quote.ts';
import type { SharingHazard } from '../hazards/sharing-hazards.ts';
import type { TableHazard } from '../hazards/table-hazards.ts';
import { creationCommentParts, type MarkedDatabase } from '../replication/publication-marker.ts';

/** From here on the service may have created a publication, for one that it takes over: before all WAL that a slot can need. */
const TAKEN_OVER_LSN = '0/1';

/** What an operator does about a publication that other programs may read. Pure. */
export function sharingAdvice({ code, namespace, isOurs }: SharingHazard, database: MarkedDatabase): string {
  const name = quoteIdentifier(namespace);
  switch (code) {
    case 'column_lists_withheld': {
      const mark = quoteLiteral(creationCommentParts(database).join(TAKEN_OVER_LSN));
      const takeOver = isOurs
        ? ''
        : ` give it to the service as its owner, COMMENT ON PUBLICATION ${name} IS ${mark};, and`;
      return `Set publish_columns: all for namespace ${name}; or, once no other program reads it,${takeOver} restart the service`;
    }
    case 'column_lists_shared':
      return `If one of them reads publication ${name}, set publish_columns: all for the namespace and restart the service`;
    case 'publication_excess':
      return `If no other program reads publication ${name}, remove them: ALTER PUBLICATION ${name} DROP TABLE ... (or DROP TABLES IN SCHEMA ...)`;
  }
}

/** What an operator does about a hazard of a table. Pure. */
export function hazardAdvice({ code, namespace, table, objects }: TableHazard): string {
  const index = `give the table an index as its replica identity, with replica_identity: status_index of namespace ${quoteIdentifier(namespace)}`;
  switch (code) {
    case 'table_children': {
      const detach = objects.map((child) => `ALTER TABLE ${child} NO INHERIT ${quoteTable(table)};`);
      return `Move their rows into the table, and run as their owner: ${detach.join(' ')}`;
    }
    case 'table_unlogged':
      return `Run as its owner: ALTER TABLE ${quoteTable(table)} SET LOGGED;`;
    case 'table_rules': {
      const drop = objects.map((rule) => `DROP RULE ${quoteIdentifier(rule)} ON ${quoteTable(table)};`);
      return `Move the rows into the table, and run as its owner: ${drop.join(' ')}`;
    }
    case 'published_as_root': {
      const set = objects.map(
        (name) => `ALTER PUBLICATION ${quoteIdentifier(name)} SET (publish_via_partition_root = false);`,
      );
      return `Run as the owner of the publication: ${set.join(' ')}`;
    }
    case 'identity_column_list':
      return `Remove the column list of ${quoteTable(table)} from publication ${objects.map(quoteIdentifier).join(', ')}, or let it hold process_id and status, and ${index}`;
    case 'identity_row_filter': {
      const narrow = objects.map((name) => `ALTER PUBLICATION ${quoteIdentifier(name)} SET (publish = 'insert');`);
      return `Let the row filter name columns of the replica identity only, or remove it, or run as the owner of the publication: ${narrow.join(' ')}`;
    }
    case 'identity_stored_columns': {
      const publish = objects.map(
        (name) => `ALTER PUBLICATION ${quoteIdentifier(name)} SET (publish_generated_columns = stored);`,
      );
      return `Run as the owner of the publication, after it is created: ${publish.join(' ')}, or ${index}`;
    }
    case 'identity_virtual_columns':
      return `Remove the column, or ${index}`;
    case 'status_labels':
      return 'If a label was renamed, give it its name back (ALTER TYPE ... RENAME VALUE), and compare the processes that changed meanwhile with the topics; if progressor has a new status, update this service';
  }
}
