/** The command line options of the demo. */
import { parseArgs } from 'node:util';
import type { PostgresMajor } from '../support/postgres/server.ts';

/** Options of the demo. */
export interface DemoOptions {
  /** How long to write; undefined means until Ctrl-C */
  readonly durationMs: number | undefined;
  /** Transactions per second */
  readonly rate: number;
  readonly postgres: PostgresMajor;
  readonly seed: number;
}

/** What `--help` prints. */
export const USAGE = `Usage: bun test/demo/main.ts [options]

Starts PostgreSQL, Kafka, dist/cdc-notifier and a simulated progressor workload, and shows the records that arrive in Kafka.

  --duration SECONDS  how long to write (default on a terminal: until Ctrl-C; otherwise 20)
  --rate N            transactions per second (default 20)
  --postgres MAJOR    14, 17 or 18 (default 18; the others need make install)
  --seed N            seed of the random workload (default 1)
  --help              print this help`;

const DEFAULT_DURATION_S = 20;

/**
 * Parses the arguments after the program's name; undefined when they ask for help.
 * @throws Error on an invalid argument
 */
export function parseOptions(args: readonly string[], isTerminal: boolean): DemoOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      duration: { type: 'string' },
      rate: { type: 'string', default: '20' },
      postgres: { type: 'string', default: '18' },
      seed: { type: 'string', default: '1' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const seconds = values.duration === undefined ? undefined : positive('--duration', values.duration);
  const durationS = seconds ?? (isTerminal ? undefined : DEFAULT_DURATION_S);
  const major = Number(values.postgres);
  if (major !== 14 && major !== 17 && major !== 18) throw new Error(`Cannot use --postgres ${values.postgres}`);
  return {
    durationMs: durationS === undefined ? undefined : durationS * 1000,
    rate: positive('--rate', values.rate),
    postgres: major,
    seed: positive('--seed', values.seed),
  };
}

function positive(name: string, text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value <= 0)
    throw new Error(`Cannot use ${name} ${text}: a positive number is expected`);
  return value;
}
