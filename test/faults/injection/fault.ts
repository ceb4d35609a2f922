/** What a fault is, and when it may be injected. */
import type { FaultFixture } from '../fixture/fault-fixture.ts';

/**
 * When a fault is injected. `idle`: everything is confirmed. `load`: small transactions are written continuously. `huge`: in the
 * middle of a transaction larger than the in-flight budget. `backlog`: while the service catches up.
 */
export type Moment = 'idle' | 'load' | 'huge' | 'backlog';

/** One fault, and what the service must do about it. */
export interface Fault {
  /** Completes `nothing is lost when ...` */
  readonly name: string;
  readonly moments: readonly Moment[];
  /** Needs the cluster of three brokers */
  readonly onCluster?: boolean | undefined;
  /** The side it concerns: faults of different sides can be combined; without it a fault is injected alone */
  readonly side?: 'service' | 'PostgreSQL' | 'Kafka' | undefined;
  /** Records must be repeated: the proof that the fault was injected where its name says */
  readonly repeats?: boolean | undefined;
  /** Top-level settings of the configuration, such as longer retries */
  readonly settings?: object | undefined;
  /** Injects the fault; resolves when servers and network work again */
  readonly inject: (fixture: FaultFixture) => Promise<void>;
}

/** Every moment */
export const ALWAYS: readonly Moment[] = ['idle', 'load', 'huge', 'backlog'];

/** Moments with records in flight */
export const BUSY: readonly Moment[] = ['load', 'huge', 'backlog'];
