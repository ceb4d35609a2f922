/** A logger that keeps its lines for tests. */
import pino, { type Logger } from 'pino';
import { serializeError } from '../../../src/log.ts';

/** One line: bound and given fields, the message as `msg`, the level by name. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [key: string]: unknown;
}

/** Creates a logger that appends every line of every level to `lines`, which the test may empty. */
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
