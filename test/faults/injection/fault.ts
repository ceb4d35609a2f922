/** What a fault is, and when it may strike. */
import type { FaultFixture } from '../fixture/fault-fixture.ts';

/**
 * Where in the stream a fault strikes. `idle`: all is confirmed. `load`: small transactions come all the time. `huge`: in
 * the middle of a transaction that is larger than what may be in flight. `backlog`: the service is catching up.
 */
export type Moment = 'idle' | 'load' | 'huge' | 'backlog';

/** One thing that goes wrong. */
export interface Fault {
  /** Completes `nothing is lost when ...` */
  readonly name: string;
  readonly moments: readonly Moment[];
  /** Needs three brokers */
  readonly onCluster?: boolean | undefined;
  /** Whom it strikes. Faults that strike different ones may come together; without it a fault comes alone */
  readonly strikes?: 'service' | 'PostgreSQL' | 'Kafka' | undefined;
  /** What was delivered before must come again: the proof that it struck where it says */
  readonly repeats?: boolean | undefined;
  /** Keys at the top of the configuration, for a service that must wait longer than others */
  readonly settings?: object | undefined;
  /** Does the harm; resolves when servers and network are well again */
  readonly inject: (fixture: FaultFixture) => Promise<void>;
}

/** Every moment */
export const ALWAYS: readonly Moment[] = ['idle', 'load', 'huge', 'backlog'];

/** Moments with something on its way to Kafka */
export const BUSY: readonly Moment[] = ['load', 'huge', 'backlog'];
