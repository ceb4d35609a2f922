/**
 * From the `sys.config` of the Erlang service to our configuration. What can be said in it is carried over, what cannot
 * is listed, and nothing is guessed: a required value that the old file does not hold is left out, so that the new file
 * is refused until somebody adds it. Secrets are never copied.
 */

import { ConfigError, type ConfigIssue, formatIssue } from '../config/config-error.ts';
import { errorCode, readBytes } from '../config/secret.ts';
import { importDatabases } from './databases.ts';
import { Findings, type Setting } from './import-report.ts';
import { importKafkaClients } from './kafka-clients.ts';
import { Settings, variableOf, wholeNumber } from './settings.ts';
import { importStreams } from './streams.ts';
import { itemsOf, type Term } from './term.ts';
import { positionAt, readTerm, TermError } from './term-reader.ts';
import { Draft } from './yaml-draft.ts';

/** A configuration is a few pages; what is longer is another file given by mistake. */
const MAX_TEXT_LENGTH = 1024 * 1024;

/** What became of a `sys.config`. */
export interface ImportedConfig {
  /** Our configuration file, with what follows in comments at its top */
  readonly yaml: string;
  /** Lines for people: what is to be looked at, what was left out, which environment variables are needed */
  readonly report: readonly string[];
  /** True when nothing is to be looked at: with the variables set, the new file does what the old one did */
  readonly isComplete: boolean;
}

/** Carries over a file. Throws ConfigError when it cannot be read, or is no list of Erlang terms. */
export function loadSysConfig(path: string): ImportedConfig {
  let source: Uint8Array;
  try {
    source = readBytes(path);
  } catch (error) {
    throw mistake(path, '', 0, `cannot be read (${errorCode(error)})`);
  }
  return importSysConfig(source, path);
}

/** As `loadSysConfig`, from the bytes of the file. */
export function importSysConfig(source: Uint8Array, fileName: string): ImportedConfig {
  const text = decode(source, fileName);
  const term = readWholeTerm(text, fileName);
  const findings = new Findings(text, fileName);
  const draft = new Draft(findings, variablesIn(term));
  const applications = Settings.read({ term: withoutIncludes(term, findings), steps: [] }, findings);
  if (applications === undefined) {
    throw mistake(fileName, text, term.offset, 'must be a list of {Application, Settings}');
  }
  importApplications(applications, draft, findings);
  draft.check();
  const report = reportLines(findings, draft.variables, fileName);
  const header = [`Made by cdc-notifier --import ${fileName}`, ...(report.length === 0 ? [] : ['', ...report])];
  return { yaml: draft.yaml(header), report, isComplete: findings.toLookAt.length === 0 };
}

function reportLines(findings: Findings, variables: ReadonlyMap<string, string>, fileName: string): string[] {
  const issueLines = (issues: readonly ConfigIssue[]) => issues.map((issue) => formatIssue(fileName, issue));
  const paragraphs: [title: string, lines: readonly string[]][] = [
    ['To look at:', issueLines(findings.toLookAt)],
    ['Left out, as nothing here needs it:', issueLines(findings.notNeeded)],
    [
      'Secrets are not copied. Set these environment variables, or write {file: PATH} in their place:',
      [...variables].map(([name, path]) => `${name}: ${path}`),
    ],
  ];
  return paragraphs
    .filter(([, lines]) => lines.length > 0)
    .flatMap(([title, lines]) => ['', title, ...lines.map((line) => `  ${line}`)])
    .slice(1);
}

function importApplications(applications: Settings, draft: Draft, findings: Findings): void {
  const output = { draft, findings };
  const connector = applications.take('epg_connector');
  if (connector !== undefined) importDatabases(connector, applications.take('canal'), output);
  const brod = applications.take('brod');
  if (brod !== undefined) importKafkaClients(brod, output);
  const progressor = applications.take('cdc_progressor');
  if (progressor !== undefined) importStreams(progressor, output);
  importListener(applications.take('cdc_notifier'), draft, findings);
  for (const [, application] of applications.rest()) {
    findings.drop(application, 'belongs to an application that does not exist here');
  }
}

/** The old service serves its metrics on a port of every IPv4 address, by default too. */
function importListener(notifier: Setting | undefined, draft: Draft, findings: Findings): void {
  const settings = notifier === undefined ? undefined : Settings.read(notifier, findings);
  const origin = settings?.take('port');
  const port = origin === undefined ? undefined : wholeNumber(origin, findings, ['http', 'port']);
  if (origin !== undefined && port !== undefined) {
    draft.set(['http', 'host'], '0.0.0.0', { origin, comment: 'As before, every IPv4 address' });
    draft.set(['http', 'port'], port, { origin });
  } else {
    draft.closeWith([
      'The old service served metrics on port 8022 of every address. Here nobody listens without:',
      'http: {host: 0.0.0.0}',
    ]);
  }
  settings?.reportRest();
}

/** Erlang takes UTF-8, unless one of the first two lines says otherwise. */
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

/** The top may name further files, whose settings are then added. */
function withoutIncludes(term: Term, findings: Findings): Term {
  const items = itemsOf(term) ?? [];
  const isInclude = (item: Term) => item.kind === 'string' && item.text !== '';
  for (const [index, item] of items.entries()) {
    if (isInclude(item)) findings.open({ term: item, steps: [index] }, 'names a further file, which was not read');
  }
  return term.kind === 'list' ? { ...term, items: items.filter((item) => !isInclude(item)) } : term;
}

/** Names of environment variables anywhere in a term. */
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
