import { Document, Pair, Scalar, YAMLMap } from 'yaml';
import { ConfigError, formatPath } from '../config/config-error.ts';
import { parseConfig } from '../config/load.ts';
import type { ImportReport } from './import-report.ts';
import { type Setting, textOf } from './term.ts';
import { variableOf } from './values.ts';

/** Origin and comment of a key in the new file. */
export interface KeyOptions {
  /** The setting that it was converted from */
  readonly origin: Setting;
  /** A line before the key */
  readonly comment?: string | undefined;
}

/** Options of `YamlDraft.setSecret`. */
export interface SecretOptions extends KeyOptions {
  /** The secret in the old file; absent when it is elsewhere, as the comment then says */
  readonly secret: Setting | undefined;
  /** Name of the database or client that it belongs to, for the name of a variable */
  readonly owner: string;
}

/**
 * The new configuration under construction: a YAML document that remembers which setting each of its keys was converted
 * from. Keys appear in the order of the calls. Secrets never get into it, only the names of the environment variables that
 * contain them.
 */
export class YamlDraft {
  readonly #top = new YAMLMap();
  readonly #document = new Document(this.#top);
  /** By path, like the origins */
  readonly #pairs = new Map<string, Pair<Scalar, unknown>>();
  readonly #origins = new Map<string, Setting>();
  readonly #variables = new Map<string, string>();
  readonly #report: ImportReport;
  readonly #usedVariables: ReadonlySet<string>;

  /** @param usedVariables the environment variables named in the old file */
  constructor(report: ImportReport, usedVariables: ReadonlySet<string>) {
    this.#report = report;
    this.#usedVariables = usedVariables;
  }

  /** Writes a value and the mappings around it; a key that exists keeps its position. */
  set(target: readonly string[], value: unknown, { origin, comment }: KeyOptions): void {
    const pair = this.#pairAt(target);
    pair.value = this.#document.createNode(value);
    if (comment !== undefined) pair.key.commentBefore = commentLines([comment]);
    this.#origins.set(formatPath(target), origin);
  }

  /** True when a value was written at the path. */
  has(target: readonly string[]): boolean {
    return this.#origins.has(formatPath(target));
  }

  /** Writes a mapping that may stay empty. */
  setMapping(target: readonly string[], origin: Setting): void {
    this.set(target, new YAMLMap(), { origin });
  }

  /** Writes a reference to an environment variable instead of a secret: the one named in the old file, or a new one. */
  setSecret(target: readonly string[], { secret, owner, origin, comment }: SecretOptions): void {
    const sources = comment === undefined ? [] : [comment];
    const variable = secret === undefined ? undefined : variableOf(secret.term);
    if (secret !== undefined && variable?.hasDefault === true) {
      this.#report.addQuestion(secret, 'has a default, which is not copied: it may be a secret');
    } else if (secret !== undefined && variable === undefined) {
      const text = textOf(secret.term);
      if (text !== undefined && text !== '') {
        sources.push(`the text at ${this.#report.placeOf(secret)}, not copied`);
      } else if (comment === undefined) {
        this.#report.addQuestion(secret, `${text === '' ? 'is empty' : 'is not text'} and was dropped`, target);
        return;
      }
    }
    const name = variable?.name ?? this.#freeVariable(owner);
    this.#variables.set(name, formatPath(target));
    const reference = this.#document.createNode({ env: name }, { flow: true });
    this.set(target, reference, {
      origin: secret ?? origin,
      comment: sources.length === 0 ? undefined : sources.join(', otherwise '),
    });
  }

  /** Sets the comment at the end of the file. */
  closeWith(lines: readonly string[]): void {
    this.#document.comment = commentLines(lines);
  }

  /** The environment variables of the configuration, each with the path of a key that reads it. */
  get variables(): ReadonlyMap<string, string> {
    return this.#variables;
  }

  /** Checks the new configuration as the service does, and reports its mistakes. */
  check(): void {
    const environment = Object.fromEntries([...this.#variables.keys()].map((name) => [name, 'a secret']));
    const readFile = () => Buffer.from('-----BEGIN CERTIFICATE-----');
    try {
      parseConfig(this.yaml([]), { fileName: 'import', environment, readFile });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const { path, message } of error.issues) this.#report.addRejected(path, message, this.#originOf(path));
    }
  }

  /** Returns the text of the file, after a header of comment lines. */
  yaml(header: readonly string[]): string {
    this.#document.commentBefore = header.length === 0 ? null : commentLines(header);
    return this.#document.toString({ lineWidth: 0 });
  }

  #pairAt(target: readonly string[]): Pair<Scalar, unknown> {
    const path = formatPath(target);
    const known = this.#pairs.get(path);
    if (known !== undefined) return known;
    const added = new Pair<Scalar, unknown>(new Scalar(target.at(-1)));
    this.#mappingAt(target.slice(0, -1)).items.push(added);
    this.#pairs.set(path, added);
    return added;
  }

  #mappingAt(target: readonly string[]): YAMLMap<unknown, unknown> {
    if (target.length === 0) return this.#top;
    const pair = this.#pairAt(target);
    if (pair.value instanceof YAMLMap) return pair.value;
    const mapping = new YAMLMap();
    pair.value = mapping;
    return mapping;
  }

  /** Returns the origin of a key, or of the nearest mapping around it. */
  #originOf(path: string): Setting | undefined {
    for (let around = path; around !== ''; around = around.slice(0, Math.max(around.search(/[.[][^.[]*$/), 0))) {
      const origin = this.#origins.get(around);
      if (origin !== undefined) return origin;
    }
    return undefined;
  }

  /** Returns a name that neither the old file nor another secret uses. */
  #freeVariable(owner: string): string {
    const stem = owner
      .toUpperCase()
      .replaceAll(/[^A-Z0-9]+/g, '_')
      .replaceAll(/^_+|_+$/g, '');
    const wanted = /^[A-Z]/.test(stem) ? `${stem}_PASSWORD` : `PASSWORD${stem === '' ? '' : `_${stem}`}`;
    let name = wanted;
    for (let count = 2; this.#variables.has(name) || this.#usedVariables.has(name); count++)
      name = `${wanted}_${count}`;
    return name;
  }
}

/** Some control characters end a line in YAML, and with it a comment: they become spaces. */
function commentLines(lines: readonly string[]): string {
  return lines.map((line) => (line === '' ? '' : ` ${line.replaceAll(/[\p{Cc}\u2028\u2029]+/gu, ' ')}`)).join('\n');
}
