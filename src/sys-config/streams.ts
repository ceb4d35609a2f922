/** The streams of cdc_progressor, whose three levels have the same names as ours. Source: `cdc_progressor.erl`. */

import { carryOver, type ImportOutput } from './carry-over.ts';
import { Settings } from './settings.ts';
import type { Setting } from './term.ts';
import { plainText, wholeNumber } from './values.ts';

/** Converts the section `cdc_progressor`. */
export function importStreams(progressor: Setting, output: ImportOutput): void {
  const settings = Settings.read(progressor, output.report);
  if (settings === undefined) return;
  const streams = settings.take('streams');
  if (streams !== undefined) importLevel(streams, ['streams'], output);
  for (const key of ['resend_timeout', 'max_retries', 'reconnect_timeout']) {
    carryOver(settings, key, { ...output, target: [], read: wholeNumber });
  }
  settings.reportRest();
}

/** Converts a mapping of databases, slots or namespaces, or a namespace itself. */
function importLevel(level: Setting, target: readonly string[], output: ImportOutput): void {
  const settings = Settings.read(level, output.report);
  if (settings === undefined) return;
  output.draft.setMapping(target, level);
  if (target.length <= NAMESPACE_DEPTH) {
    for (const [key, entry] of settings.rest()) importLevel(entry, [...target, key], output);
    return;
  }
  for (const key of ['kafka_client', 'eventsink_topic', 'lifecycle_topic']) {
    carryOver(settings, key, { ...output, target, read: plainText });
  }
  settings.reportRest();
}

/** Steps above a namespace: `streams`, db_ref and slot. */
const NAMESPACE_DEPTH = 3;
