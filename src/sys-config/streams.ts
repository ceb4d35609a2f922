/** The streams of cdc_progressor: three levels with the names of ours. Source: `cdc_progressor.erl`. */

import { carryOver, type ImportOutput } from './carry-over.ts';
import type { Setting } from './import-report.ts';
import { plainText, Settings, wholeNumber } from './settings.ts';

/** Carries over the section `cdc_progressor`. */
export function importStreams(progressor: Setting, output: ImportOutput): void {
  const settings = Settings.read(progressor, output.findings);
  if (settings === undefined) return;
  const streams = settings.take('streams');
  if (streams !== undefined) importLevel(streams, ['streams'], output);
  for (const key of ['resend_timeout', 'max_retries', 'reconnect_timeout']) {
    carryOver(settings, key, { ...output, target: [], read: wholeNumber });
  }
  settings.reportRest();
}

/** A mapping of databases, slots or namespaces, or at last a namespace. */
function importLevel(level: Setting, target: readonly string[], output: ImportOutput): void {
  const settings = Settings.read(level, output.findings);
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

/** `streams`, db_ref and slot stand above a namespace. */
const NAMESPACE_DEPTH = 3;
