import { NotifierError } from '../errors.ts';

/** One mistake in a configuration file. */
export interface ConfigIssue {
  /** Keys from the top: `databases.progressor_db.password`, `kafka_clients.main.brokers[0]`; empty = the whole file */
  readonly path: string;
  /** Counted from 1 */
  readonly line: number;
  /** Counted from 1, in UTF-16 units */
  readonly column: number;
  readonly message: string;
}

/**
 * A configuration that cannot be used, with all its mistakes in the order of the file. The message has one line for each,
 * `FILE:LINE:COLUMN: path: message`. Never contains a secret.
 */
export class ConfigError extends NotifierError {
  override readonly name = 'ConfigError';
  readonly fileName: string;
  readonly issues: readonly ConfigIssue[];

  constructor(fileName: string, issues: readonly ConfigIssue[]) {
    const inFileOrder = [...issues].sort((a, b) => a.line - b.line || a.column - b.column);
    super(inFileOrder.map((issue) => formatIssue(fileName, issue)).join('\n'), { code: 'configuration' });
    this.fileName = fileName;
    this.issues = inFileOrder;
  }
}

/** Formats an issue as compilers do, so editors and terminals can jump to it. */
export function formatIssue(fileName: string, issue: ConfigIssue): string {
  const place = `${fileName}:${issue.line}:${issue.column}`;
  return issue.path === '' ? `${place}: ${issue.message}` : `${place}: ${issue.path}: ${issue.message}`;
}

/** One step of a path: a key of a mapping, or an index of a list. */
export type PathStep = string | number;

/** Formats a path; keys with anything but letters, digits, `_`, `-` and `/` are quoted as JSON. */
export function formatPath(steps: readonly PathStep[]): string {
  let text = '';
  for (const step of steps) {
    if (typeof step === 'number') {
      text += `[${step}]`;
    } else {
      const key = /^[\p{L}\p{N}_/-]+$/u.test(step) ? step : JSON.stringify(step);
      text += text === '' ? key : `.${key}`;
    }
  }
  return text;
}
