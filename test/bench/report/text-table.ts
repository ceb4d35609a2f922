/** Tables and figures as text. */

/** Columns as wide as their widest cell; texts and the first column stand left, figures right. The first row is the head. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const isText = (column: number): boolean =>
    column === 0 || rows.slice(1).some((row) => /^[a-z]/i.test(row[column] ?? ''));
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => (isText(column) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd();
  const [head = [], ...body] = rows;
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...body.map(line)];
}

/** A whole number with its thousands set apart. */
export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** Bytes in millions. */
export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}
