/**
 * The new configuration while it is made: a YAML document that knows what each of its keys was made of. Secrets never
 * get into it, only the names of the environment variables that are to hold them.
 */

import { Document, Pair, Scalar, YAMLMap } from 'yaml';
import { ConfigError, formatPath } from '../config/config-error.ts';
import { parseConfig } from '../config/load.ts';
import type { Findings, Setting } from './import-report.ts';
import { variableOf } from './settings.ts';
import { textOf } from './term.ts';

/** What is known of a key that is written. */
export interface KeyOptions {
  /** What it was made of */
  readonly origin: Setting;
  /** Stands in a line before the key */
  readonly comment?: string | undefined;
}

/** Where a secret goes. */
export interface SecretOptions extends KeyOptions {
  /** The secret of the old file; absent when it came from elsewhere, which the comment then tells */
  readonly secret: Setting | undefined;
  /** Name of what it belongs to, for the name of a variable */
  readonly owner: string;
}

/** A configuration in the making, written in the order of the calls. */
export class Draft {
  readonly #top = new YAMLMap();
  readonly #document = new Document(this.#top);
  /** By path, as the origins are */
  readonly #pairs = new Map<string, Pair<Scalar, unknown>>();
  readonly #origins = new Map<string, Setting>();
  readonly #variables = new Map<string, string>();
  readonly #findings: Findings;
  readonly #usedVariables: ReadonlySet<string>;

  /** `usedVariables`: the environment variables that the old file names. */
  constructor(findings: Findings, usedVariables: ReadonlySet<string>) {
    this.#findings = findings;
    this.#usedVariables = usedVariables;
  }

  /** Writes a value, with all mappings around it; a key that is already there keeps its place. */
  set(target: readonly string[], value: unknown, { origin, comment }: KeyOptions): void {
    const pair = this.#pairAt(target);
    pair.value = this.#document.createNode(value);
    if (comment !== undefined) pair.key.commentBefore = commentLines([comment]);
    this.#origins.set(formatPath(target), origin);
  }

  /** True when a value was written there. */
  has(target: readonly string[]): boolean {
    return this.#origins.has(formatPath(target));
  }

  /** Writes a mapping that may stay empty. */
  setMapping(target: readonly string[], origin: Setting): void {
    this.set(target, new YAMLMap(), { origin });
  }

  /** Writes what stands in place of a secret: the variable that the old file names, or one of the owner's name. */
  setSecret(target: readonly string[], { secret, owner, origin, comment }: SecretOptions): void {
    const said = comment === undefined ? [] : [comment];
    const variable = secret === undefined ? undefined : variableOf(secret.term);
    if (secret !== undefined && variable?.hasDefault === true) {
      this.#findings.open(secret, 'has a default, which is not copied: it may be a secret');
    } else if (secret !== undefined && variable === undefined) {
      const text = textOf(secret.term);
      if (text !== undefined && text !== '') {
        said.push(`the text at ${this.#findings.placeOf(secret)}, not copied`);
      } else if (comment === undefined) {
        this.#findings.open(secret, `${text === '' ? 'is empty' : 'is not text'} and was left out`, target);
        return;
      }
    }
    const name = variable?.name ?? this.#freeVariable(owner);
    this.#variables.set(name, formatPath(target));
    const reference = this.#document.createNode({ env: name }, { flow: true });
    this.set(target, reference, {
      origin: secret ?? origin,
      comment: said.length === 0 ? undefined : said.join(', else '),
    });
  }

  /** Adds comment lines after all else. */
  closeWith(lines: readonly string[]): void {
    this.#document.comment = commentLines(lines);
  }

  /** The environment variables that the configuration reads, each with a key that reads it. */
  get variables(): ReadonlyMap<string, string> {
    return this.#variables;
  }

  /** Has the new configuration checked as the service does it, and reports what it is refused for. */
  check(): void {
    const environment = Object.fromEntries([...this.#variables.keys()].map((name) => [name, 'a secret']));
    const readFile = () => Buffer.from('-----BEGIN CERTIFICATE-----');
    try {
      parseConfig(this.yaml([]), { fileName: 'import', environment, readFile });
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      for (const { path, message } of error.issues) this.#findings.refuse(path, message, this.#originOf(path));
    }
  }

  /** The text of the file, below a header of comment lines. */
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

  /** What a key, or else the nearest mapping around it, was made of. */
  #originOf(path: string): Setting | undefined {
    for (let around = path; around !== ''; around = around.slice(0, Math.max(around.search(/[.[][^.[]*$/), 0))) {
      const origin = this.#origins.get(around);
      if (origin !== undefined) return origin;
    }
    return undefined;
  }

  /** A name that neither the old file nor another secret has: two secrets in one variable would become one. */
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

/** To YAML some control characters end a line, and with it a comment. */
function commentLines(lines: readonly string[]): string {
  return lines.map((line) => (line === '' ? '' : ` ${line.replaceAll(/[\p{Cc}\u2028\u2029]+/gu, ' ')}`)).join('\n');
}
