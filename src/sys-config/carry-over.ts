/** What every part of an import writes to, and the plainest way to do it. */

import type { Findings } from './import-report.ts';
import type { Settings, ValueReader } from './settings.ts';
import type { Draft } from './yaml-draft.ts';

/** Where an import goes. */
export interface ImportOutput {
  readonly draft: Draft;
  readonly findings: Findings;
}

/** A place in it: the keys of a mapping or value of the new file. */
export interface ImportPlace extends ImportOutput {
  readonly target: readonly string[];
}

/** How to read a value, and what to say of it. */
export interface CarryOptions<Value> {
  readonly read: ValueReader<Value>;
  readonly comment?: string | undefined;
}

/** Writes the value of a key that both files know under one name, into the mapping at the place; returns it. */
export function carryOver<Value>(
  settings: Settings,
  key: string,
  { target, draft, findings, read, comment }: ImportPlace & CarryOptions<Value>,
): Value | undefined {
  const origin = settings.take(key);
  const value = origin === undefined ? undefined : read(origin, findings, [...target, key]);
  if (origin !== undefined && value !== undefined) draft.set([...target, key], value, { origin, comment });
  return value;
}
