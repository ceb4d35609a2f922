/** A logger whose lines can be looked at. */
import pino, { type Logger } from 'pino';
import { serializeError } from '../../../src/log.ts';

/** One line: what was bound and given, the message under `msg`, and the level by name. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [key: string]: unknown;
}

/** Makes a logger that keeps every line of every level; `lines` grows as it is used and may be emptied. */
export function recordingLogger(): { readonly logger: Logger; readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const logger = pino(
    {
      level: 'trace',
      base: null,
      timestamp: false,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: serializeError },
    },
    { write: (line: string) => void lines.push(JSON.parse(line)) },
  );
  return { logger, lines };
}
