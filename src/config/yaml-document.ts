/**
 * Parses YAML text into the tree that the schema checks, and keeps the position of every value. Reports syntax errors,
 * further documents, tags, merge keys, unknown keys, and keys given twice at any level, even below unknown keys.
 *
 * Fixed mappings become objects without a prototype, mappings with names of the user's choice become Maps, so no key has a
 * meaning in JavaScript. Messages never show a value, nor any part of the text but keys: an unquoted password that begins
 * with `*` or `!` is an alias or a tag in YAML.
 */

import {
  type Alias,
  type Document,
  type ErrorCode,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Pair,
  parseAllDocuments,
  type YAMLMap,
} from 'yaml';
import { type ConfigIssue, formatPath, type PathStep } from './config-error.ts';
import { type SchemaNode, type Shape, shapeOf } from './schema-shape.ts';
import type { SecretSource } from './secret-source.ts';
import { secretMistake } from './secret-source.ts';
import { didYouMean } from './suggest.ts';

/** A configuration is a few pages; a longer text is another file given by mistake. */
const MAX_TEXT_LENGTH = 1024 * 1024;
/** Aliases save a few repetitions; many nested ones are an attack (each may expand to a whole branch). */
const MAX_ALIAS_COUNT = 100;

/** A well-formed secret and its path. */
export interface LocatedSecret {
  readonly steps: readonly PathStep[];
  readonly source: SecretSource;
  /** True when it must be PEM text or the path of a PEM file */
  readonly pem: boolean;
}

/** The result of parsing, as far as it was possible. */
export interface ConfigDocument {
  /** The tree for the schema; undefined after syntax errors */
  readonly tree: unknown;
  readonly secrets: readonly LocatedSecret[];
  readonly issues: readonly ConfigIssue[];
  /** Creates an issue at a value or at its key; when it is not in the file, at the nearest mapping around it */
  readonly issueAt: (steps: readonly PathStep[], message: string, at?: 'key' | 'value') => ConfigIssue;
  /** True when the value at the path has been reported and left out of the tree */
  readonly isLeftOut: (steps: readonly PathStep[]) => boolean;
}

/** Parses one YAML 1.2 document (JSON is one) according to a schema. */
export function readDocument(text: string, schema: SchemaNode): ConfigDocument {
  const issues: ConfigIssue[] = [];
  if (text.length > MAX_TEXT_LENGTH) return unreadable(issues, `is longer than ${MAX_TEXT_LENGTH} characters`);
  const lines = new LineCounter();
  let documents: Document.Parsed[];
  try {
    const parsed = parseAllDocuments(text, {
      lineCounter: lines,
      prettyErrors: false,
      version: '1.2',
      merge: false,
      stringKeys: true,
      resolveKnownTags: false,
      // The walk below reports duplicates, with their paths.
      uniqueKeys: false,
      keepSourceTokens: false,
      logLevel: 'silent',
    });
    documents = Array.isArray(parsed) ? parsed : [];
  } catch {
    // The parser is recursive: thousands of nested brackets overflow the stack.
    return unreadable(issues, 'is nested too deeply');
  }

  const reportOffset = (offset: number, message: string) => {
    const { line, col } = lines.linePos(Math.min(offset, text.length));
    issues.push({ path: '', line: Math.max(line, 1), column: Math.max(col, 1), message });
  };
  const [document, ...others] = documents;
  for (const other of others) {
    reportOffset(other.range[0], 'a second document begins here; the configuration must be one document');
  }
  if (document === undefined) return unreadable(issues, 'is empty');
  if (document.directives.yaml.explicit === true && document.directives.yaml.version !== '1.2') {
    reportOffset(0, 'must be YAML 1.2');
  }
  for (const { code, pos, message } of documents.flatMap(({ errors, warnings }) => [...errors, ...warnings])) {
    reportOffset(pos[0], syntaxMessage(code, message));
  }

  try {
    const walk = new Walk(document, lines, issues);
    const tree = walk.node(document.contents, schema, [], false);
    const isReliable = documents.every(({ errors }) => errors.length === 0);
    return {
      tree: isReliable ? tree : undefined,
      secrets: isReliable ? walk.secrets : [],
      issues,
      issueAt: (steps, message, at = 'value') => walk.issueAt(steps, message, at),
      isLeftOut: (steps) => walk.isLeftOut(steps),
    };
  } catch (error) {
    if (error instanceof RangeError) return unreadable(issues, 'is nested too deeply');
    throw error;
  }
}

function unreadable(issues: ConfigIssue[], message: string): ConfigDocument {
  const issueAt = (steps: readonly PathStep[], text: string) => ({
    path: formatPath(steps),
    line: 1,
    column: 1,
    message: text,
  });
  issues.push(issueAt([], message));
  return { tree: undefined, secrets: [], issues, issueAt, isLeftOut: () => false };
}

/** Replacements for messages of the parser that may quote the text. */
const UNQUOTED_MESSAGES: Partial<Record<ErrorCode, string>> = {
  BAD_DIRECTIVE: 'unknown or malformed directive',
  BAD_DQ_ESCAPE: 'unknown escape sequence; in single quotes a backslash is literal',
  BAD_SCALAR_START: 'text cannot begin with this character; put it in quotes',
  RESOURCE_EXHAUSTION: 'nested too deeply',
  TAG_RESOLVE_FAILED: 'tags are not supported; put text that begins with ! in quotes',
  UNEXPECTED_TOKEN: "unexpected text; put text with YAML's special characters in quotes",
  NON_STRING_KEY: 'a key must be text',
};

function syntaxMessage(code: ErrorCode, message: string): string {
  return `is not valid YAML: ${UNQUOTED_MESSAGES[code] ?? message}`;
}

/** One pass over the nodes of a document. */
class Walk {
  readonly secrets: LocatedSecret[] = [];
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;
  readonly #issues: ConfigIssue[];
  /** By path as JSON */
  readonly #offsets = new Map<string, { key: number | undefined; value: number }>();
  readonly #leftOut = new Set<string>();
  #aliasCount = 0;

  constructor(document: Document.Parsed, lines: LineCounter, issues: ConfigIssue[]) {
    this.#document = document;
    this.#lines = lines;
    this.#issues = issues;
  }

  /**
   * Returns the value of a node. Without a schema (below an unknown key) it only looks for keys given twice, and the path
   * remains that of the unknown key.
   */
  node(node: unknown, schema: SchemaNode | undefined, steps: readonly PathStep[], isRepeated: boolean): unknown {
    if (isAlias(node)) return this.#alias(node, schema, steps, isRepeated);
    const shape = schema === undefined ? undefined : shapeOf(schema);
    if (isMap(node)) return this.#mapping(node, shape, steps, isRepeated);
    if (isSeq(node)) {
      // Valibot accepts a list as an object without keys, that is, with every default.
      if (shape?.kind === 'fixed') return this.#leaveOut(steps, node, 'must be a mapping, not a list');
      const itemSchema = shape?.kind === 'list' ? shape.item : undefined;
      return node.items.map((item, index) => {
        const itemSteps = itemSchema === undefined ? steps : [...steps, index];
        this.#locate(itemSteps, undefined, startOf(item));
        return this.node(item, itemSchema, itemSteps, isRepeated);
      });
    }
    const value = isScalar(node) ? node.value : null;
    if (shape?.kind === 'secret') this.#secret(value, shape, steps, isRepeated);
    return value;
  }

  issueAt(steps: readonly PathStep[], message: string, at: 'key' | 'value'): ConfigIssue {
    for (let length = steps.length; length > 0; length--) {
      const offsets = this.#offsets.get(JSON.stringify(steps.slice(0, length)));
      if (offsets !== undefined) {
        // A missing key is reported at the key of the mapping that lacks it.
        const offset = at === 'key' || length < steps.length ? (offsets.key ?? offsets.value) : offsets.value;
        return this.#issue(steps, offset, message);
      }
    }
    return this.#issue(steps, startOf(this.#document.contents) ?? 0, message);
  }

  isLeftOut(steps: readonly PathStep[]): boolean {
    return steps.some((_, index) => this.#leftOut.has(JSON.stringify(steps.slice(0, index + 1))));
  }

  #alias(alias: Alias, schema: SchemaNode | undefined, steps: readonly PathStep[], isRepeated: boolean): unknown {
    // The aliased value has been searched at its anchor; without a schema nothing limits the descent.
    if (schema === undefined) return undefined;
    this.#aliasCount++;
    const target = this.#aliasCount > MAX_ALIAS_COUNT ? undefined : alias.resolve(this.#document);
    if (target !== undefined) return this.node(target, schema, steps, isRepeated);
    const message =
      this.#aliasCount > MAX_ALIAS_COUNT
        ? `too many aliases: at most ${MAX_ALIAS_COUNT} are followed`
        : 'alias without an anchor before it; put text that begins with * in quotes';
    return this.#leaveOut(steps, alias, message);
  }

  #leaveOut(steps: readonly PathStep[], node: unknown, message: string): undefined {
    this.#report(steps, startOf(node), message);
    this.#leftOut.add(JSON.stringify(steps));
    return undefined;
  }

  #mapping(map: YAMLMap, shape: Shape | undefined, steps: readonly PathStep[], isRepeated: boolean): unknown {
    const firstLines = new Map<string, number>();
    const present = new Set(map.items.map(keyText));
    const values = new Map<string, unknown>();
    for (const pair of map.items) {
      const key = keyText(pair);
      const offset = startOf(pair.key);
      const isKnown = shape?.kind === 'named' || (shape?.kind === 'fixed' && shape.entries.has(key));
      const isMergeKey = key === '<<' && isScalar(pair.key) && pair.key.type === 'PLAIN';
      // Below an unknown key, and inside a secret, a key may be a secret itself: it is not shown.
      const keySteps = shape?.kind === 'named' || shape?.kind === 'fixed' ? [...steps, key] : steps;
      const firstLine = firstLines.get(key);
      if (firstLine !== undefined) this.#report(keySteps, offset, `is given twice; the first is on line ${firstLine}`);
      else firstLines.set(key, this.#lines.linePos(offset ?? 0).line);

      if (isMergeKey) {
        this.#report(steps, offset, 'merge keys are not supported; repeat the settings');
      } else if (shape?.kind === 'fixed' && !isKnown && firstLine === undefined) {
        this.#report(keySteps, offset, unknownKeyMessage(key, shape.entries, present));
      }
      const isRepeatedKey = isRepeated || firstLine !== undefined;
      if (isKnown && !isMergeKey && !isRepeatedKey) this.#locate(keySteps, offset, startOf(pair.value) ?? offset);
      const value = this.node(pair.value, isMergeKey ? undefined : schemaOf(shape, key), keySteps, isRepeatedKey);
      const isKept = isKnown || (shape !== undefined && shape.kind !== 'fixed');
      if (isKept && !isMergeKey && firstLine === undefined) values.set(key, value);
    }
    if (shape?.kind === 'named') return values;
    const object: Record<string, unknown> = Object.create(null);
    for (const [key, value] of values) object[key] = value;
    if (shape?.kind === 'secret') this.#secret(object, shape, steps, isRepeated);
    return object;
  }

  #secret(value: unknown, shape: Shape & { kind: 'secret' }, steps: readonly PathStep[], isRepeated: boolean): void {
    if (isRepeated || secretMistake(value) !== undefined) return;
    this.secrets.push({ steps, source: value as SecretSource, pem: shape.pem });
  }

  #locate(steps: readonly PathStep[], key: number | undefined, value: number | undefined): void {
    const path = JSON.stringify(steps);
    if (!this.#offsets.has(path)) this.#offsets.set(path, { key, value: value ?? key ?? 0 });
  }

  #report(steps: readonly PathStep[], offset: number | undefined, message: string): void {
    this.#issues.push(this.#issue(steps, offset ?? 0, message));
  }

  #issue(steps: readonly PathStep[], offset: number, message: string): ConfigIssue {
    const { line, col } = this.#lines.linePos(offset);
    return { path: formatPath(steps), line: Math.max(line, 1), column: Math.max(col, 1), message };
  }
}

function unknownKeyMessage(key: string, known: ReadonlyMap<string, SchemaNode>, present: ReadonlySet<string>): string {
  for (const [name, schema] of known) {
    if (shapeOf(schema).metadata.formerName === key) return `was renamed to ${name}`;
  }
  const absent = [...known.keys()].filter((name) => !present.has(name));
  const hint = didYouMean(key, absent);
  if (hint !== '') return `unknown key${hint}`;
  return absent.length === 0 ? 'unknown key' : `unknown key; available here: ${absent.join(', ')}`;
}

function schemaOf(shape: Shape | undefined, key: string): SchemaNode | undefined {
  if (shape?.kind === 'named') return shape.value;
  return shape?.kind === 'fixed' ? shape.entries.get(key) : undefined;
}

function keyText(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : '';
}

function startOf(node: unknown): number | undefined {
  if (typeof node !== 'object' || node === null || !('range' in node) || !Array.isArray(node.range)) return undefined;
  const [start] = node.range;
  return typeof start === 'number' ? start : undefined;
}
