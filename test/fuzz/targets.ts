/** The targets, by name. */
import type { FuzzTarget } from './campaign.ts';
import { config } from './config-target.ts';
import { etf, frames, ledger, lsn, metadata, timeline } from './decoder-targets.ts';
import { kafkaParsers, kafkaSessions } from './kafka-targets.ts';
import { kafkaLogins, postgresLogins } from './login-targets.ts';

interface TargetEntry {
  readonly make: () => FuzzTarget | Promise<FuzzTarget>;
  /** Share of all mutations: small where one is expensive, large where the bytes come over a network */
  readonly share: number;
}

/** Everything that parses bytes or texts from outside; the shares add up to 1. */
export const TARGETS: Readonly<Record<string, TargetEntry>> = {
  frames: { make: frames, share: 0.298 },
  etf: { make: etf, share: 0.25 },
  metadata: { make: metadata, share: 0.08 },
  lsn: { make: lsn, share: 0.04 },
  timeline: { make: timeline, share: 0.04 },
  ledger: { make: ledger, share: 0.04 },
  config: { make: config, share: 0.05 },
  'kafka-parsers': { make: kafkaParsers, share: 0.15 },
  'kafka-sessions': { make: kafkaSessions, share: 0.05 },
  'kafka-logins': { make: kafkaLogins, share: 0.001 },
  'postgres-logins': { make: postgresLogins, share: 0.001 },
};
