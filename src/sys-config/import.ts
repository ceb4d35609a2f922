/**
 * Converts the `sys.config` of the Erlang service to a configuration of cdc-notifier. Settings without a counterpart are
 * listed, and nothing is guessed: a required value that the old file lacks is left out, so `--check` rejects the new file
 * until it is added. Secrets are never copied.
 */

import { ConfigError } from '../config/config-error.ts';
import { errorCode, readBytes } from '../config/secret.ts';
import { importDatabases } from './databases.ts';
import { ImportReport } from './import-report.ts';
import { importKafkaClients } from './kafka-clients.ts';
import { Settings } from './settings.ts';
import { importStreams } from './streams.ts';
import { itemsOf, type Setting, type Term } from './term.ts';
import { positionAt, readTerm, TermError } from './term-reader.ts';
import { variableOf, wholeNumber } from './values.ts';
import { YamlDraft } from './yaml-draft.ts';

/** A configuration is a few pages; a longer text is another file given by mistake. */
const MAX_TEXT_LENGTH = 1024 * 1024;

/** Result of a conversion. */
export interface ImportedConfig {
  /** The configuration file, with the report in comments at its top */
  readonly yaml: string;
  /** Lines for the operator: open questions, dropped settings, environment variables to set */
  readonly report: readonly string[];
  /** True when there are no open questions: with the variables set, the new file is equivalent to the old one */
  readonly isComplete: boolean;
}

/**
 * Converts a file.
 * @throws ConfigError when it cannot be read, or is not a list of Erlang terms
 */
export function loadSysConfig(path: string): ImportedConfig {
  let source: Uint8Array;
  try {
    source = readBytes(path);
  } catch (error) {
    throw mistake(path, '', 0, `cannot be read (${errorCode(error)})`);
  }
  return importSysConfig(source, path);
}

/**
 * As `loadSysConfig`, from the bytes of the file.
 * @throws ConfigError when it is not a list of Erlang terms
 */
export function importSysConfig(source: Uint8Array, fileName: string): ImportedConfig {
  const text = decode(source, fileName);
  const term = readWholeTerm(text, fileName);
  const report = new ImportReport(text, fileName);
  const draft = new YamlDraft(report, variablesIn(term));
  const applications = Settings.read({ term: withoutIncludes(term, report), steps: [] }, report);
  if (applications === undefined) {
    throw mistake(fileName, text, term.offset, 'must be a list of {Application, Settings}');
  }
  importApplications(applications, draft, report);
  draft.check();
  const lines = report.format(draft.variables);
  const header = [`Converted by cdc-notifier --import ${fileName}`, ...(lines.length === 0 ? [] : ['', ...lines])];
  return { yaml: draft.yaml(header), report: lines, isComplete: report.isComplete };
}

function importApplications(applications: Settings, draft: YamlDraft, report: ImportReport): void {
  const output = { draft, report };
  const connector = applications.take('epg_connector');
  if (connector !== undefined) importDatabases(connector, applications.take('canal'), output);
  const brod = applications.take('brod');
  if (brod !== undefined) importKafkaClients(brod, output);
  const progressor = applications.take('cdc_progressor');
  if (progressor !== undefined) importStreams(progressor, output);
  importListener(applications.take('cdc_notifier'), draft, report);
  for (const [, application] of applications.rest()) {
    report.addDropped(application, 'configures an application that cdc-notifier does not have');
  }
}

/** The old service always serves its metrics on every address, on port 8022 by default. */
function importListener(notifier: Setting | undefined, draft: YamlDraft, report: ImportReport): void {
  const settings = notifier === undefined ? undefined : Settings.read(notifier, report);
  const origin = settings?.take('port');
  const port = origin === undefined ? undefined : wholeNumber(origin, report, ['http', 'port']);
  if (origin !== undefined && port !== undefined) {
    draft.set(['http', 'host'], '::', { origin, comment: 'Every address, as before' });
    draft.set(['http', 'port'], port, { origin });
  } else {
    draft.closeWith([
      'The old service served metrics on port 8022 of every address. To do the same, add:',
      "http: {host: '::'}",
    ]);
  }
  settings?.reportRest();
}

/** Erlang reads UTF-8, unless one of the first two lines names Latin-1. */
function decode(source: Uint8Array, fileName: string): string {
  const bytes = Buffer.from(source);
  const start = bytes.toString('latin1').split('\n', 2).join('\n');
  const isLatin1 = /^[^\n%]*%.*coding\s*[:=]\s*latin-1/im.test(start);
  try {
    const text = isLatin1 ? bytes.toString('latin1') : new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (text.length <= MAX_TEXT_LENGTH) return text;
  } catch {
    throw mistake(fileName, '', 0, 'is not UTF-8 text');
  }
  throw mistake(fileName, '', 0, `is longer than ${MAX_TEXT_LENGTH} characters`);
}

function readWholeTerm(text: string, fileName: string): Term {
  try {
    return readTerm(text);
  } catch (error) {
    if (!(error instanceof TermError)) throw error;
    const { line, column, detail: message } = error;
    throw new ConfigError(fileName, [{ path: '', line, column, message }]);
  }
}

function mistake(fileName: string, text: string, offset: number, message: string): ConfigError {
  return new ConfigError(fileName, [{ path: '', ...positionAt(text, offset), message }]);
}

/** The list may name further files to include: each becomes an open question. */
function withoutIncludes(term: Term, report: ImportReport): Term {
  const items = itemsOf(term) ?? [];
  const isInclude = (item: Term) => item.kind === 'string' && item.text !== '';
  for (const [index, item] of items.entries()) {
    if (isInclude(item)) report.addQuestion({ term: item, steps: [index] }, 'names another file, which was not read');
  }
  return term.kind === 'list' ? { ...term, items: items.filter((item) => !isInclude(item)) } : term;
}

/** Returns the names of environment variables anywhere in a term. */
function variablesIn(term: Term): ReadonlySet<string> {
  const names = new Set<string>();
  const visit = (visited: Term): void => {
    const name = variableOf(visited)?.name;
    if (name !== undefined) names.add(name);
    if (visited.kind === 'tuple' || visited.kind === 'list') visited.items.forEach(visit);
    if (visited.kind === 'map') visited.entries.flat().forEach(visit);
  };
  visit(term);
  return names;
}
