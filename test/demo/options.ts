/** The command line of the demo. */
import { parseArgs } from 'node:util';
import type { PostgresMajor } from '../support/postgres/server.ts';

/** How the demo runs. */
export interface DemoOptions {
  /** How long to write; undefined until Ctrl-C */
  readonly durationMs: number | undefined;
  /** Transactions a second */
  readonly rate: number;
  readonly postgres: PostgresMajor;
  readonly seed: number;
}

/** What `--help` prints. */
export const USAGE = `Usage: bun test/demo/main.ts [options]

Starts PostgreSQL, Kafka, dist/cdc-notifier and a writer that behaves as progressor, and shows what arrives in Kafka.

  --duration SECONDS  stop after so long (without a terminal: 20; on a terminal: until Ctrl-C)
  --rate N            transactions a second (20)
  --postgres MAJOR    14, 17 or 18 (18)
  --seed N            another course of events (1)
  --help              print this`;

const DEFAULT_DURATION_S = 20;

/** Reads the arguments after the program's name; undefined when help is asked for, throws on a mistake. */
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
