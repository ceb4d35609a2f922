/**
 * Quoting of names and texts for SQL and for replication commands. Namespaces are arbitrary text, so every name that
 * reaches the server goes through here or is a query parameter.
 * Source: PostgreSQL manual, "Lexical Structure" (quoted identifiers, string constants).
 */

/** A quoted identifier: any text without NUL, double quotes doubled. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * A string constant: single quotes doubled, backslashes as they are. Right where `standard_conforming_strings` is on
 * (`connectControl` sees to it) and in replication commands, whose grammar knows no other form.
 */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** A table of progressor, which always lives in schema public: `public."invoice_events"`. */
export function quoteTable(table: string): string {
  return `public.${quoteIdentifier(table)}`;
}

/**
 * The value of pgoutput's option `publication_names`: quoted identifiers, comma separated. In a replication command it
 * is then put through `quoteLiteral` once more.
 */
export function publicationNames(names: readonly string[]): string {
  return names.map(quoteIdentifier).join(',');
}
