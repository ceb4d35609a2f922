import { quoteIdentifier, quoteTable } from '../client/quote.ts';
import type { TableHazard } from '../hazards/table-hazards.ts';

/** What an operator does about a hazard of a table. Pure. */
export function hazardAdvice({ code, namespace, table, objects }: TableHazard): string {
  const index = `give the table an index as its replica identity, with replica_identity: status_index of namespace ${quoteIdentifier(namespace)}`;
  switch (code) {
    case 'table_children': {
      const detach = objects.map((child) => `ALTER TABLE ${child} NO INHERIT ${quoteTable(table)};`);
      return `Move their rows into the table, and run as their owner: ${detach.join(' ')}`;
    }
    case 'identity_column_list':
      return `Remove the column list of ${quoteTable(table)} from publication ${objects.map(quoteIdentifier).join(', ')}, or ${index}`;
    case 'identity_stored_columns': {
      const publish = objects.map(
        (name) => `ALTER PUBLICATION ${quoteIdentifier(name)} SET (publish_generated_columns = stored);`,
      );
      return `Run as the owner of the publication, after it is created: ${publish.join(' ')}, or ${index}`;
    }
    case 'identity_virtual_columns':
      return `Remove the column, or ${index}`;
  }
}
