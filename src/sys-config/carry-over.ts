/** The outputs of an import, and the copy of a setting that has the same key in both files. */

import type { ImportReport } from './import-report.ts';
import type { Settings } from './settings.ts';
import type { ValueReader } from './values.ts';
import type { YamlDraft } from './yaml-draft.ts';

/** The outputs of an import: the new file and the report. */
export interface ImportOutput {
  readonly draft: YamlDraft;
  readonly report: ImportReport;
}

/** The outputs, with the path of a mapping or value in the new file. */
export interface ImportPlace extends ImportOutput {
  readonly target: readonly string[];
}

/** Options of `carryOver`. */
export interface CarryOptions<Value> {
  /** Converts the value, or reports why it cannot */
  readonly read: ValueReader<Value>;
  /** A line before the key in the new file */
  readonly comment?: string | undefined;
}

/** Copies the value of a key that has the same name in both files into the mapping at `target`; returns the value. */
export function carryOver<Value>(
  settings: Settings,
  key: string,
  { target, draft, report, read, comment }: ImportPlace & CarryOptions<Value>,
): Value | undefined {
  const origin = settings.take(key);
  const value = origin === undefined ? undefined : read(origin, report, [...target, key]);
  if (origin !== undefined && value !== undefined) draft.set([...target, key], value, { origin, comment });
  return value;
}
