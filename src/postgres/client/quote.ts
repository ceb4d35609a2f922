/**
 * Quotes names and texts for SQL and for replication commands. Namespaces are arbitrary text, so every name that reaches
 * the server is quoted here or is a query parameter.
 * Source: PostgreSQL manual, "Lexical Structure" (quoted identifiers, string constants).
 */

/** A quoted identifier: any text without NUL, double quotes doubled. */
export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/**
 * A string constant: single quotes doubled, backslashes unchanged. Correct where `standard_conforming_strings` is on
 * (`connectControl` sets it) and in replication commands, whose grammar has no other form.
 */
export function quoteLiteral(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** A table of progressor, always in schema public: `public."invoice_events"`. */
export function quoteTable(table: string): string {
  return `public.${quoteIdentifier(table)}`;
}

/**
 * The value of pgoutput's option `publication_names`: quoted identifiers, comma separated. A replication command needs it
 * quoted by `quoteLiteral` as well.
 */
export function publicationNames(names: readonly string[]): string {
  return names.map(quoteIdentifier).join(',');
}
