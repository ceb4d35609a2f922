/** Slot statuses as a session sets them, for tests. */
import {
  type FailureView,
  type HolderView,
  type ServerSlotView,
  type SlotState,
  SlotStatus,
  type StreamView,
  type TakeoverView,
} from '../../../src/status/slot-status.ts';

/** performance.now() and Date.now() for tests without a clock. */
export const MOMENT = { nowMs: 1_000_000, wallMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678) } as const;

/** Differences from a stream that streams and is idle. */
export interface StatusChanges {
  readonly slot?: string;
  readonly state?: SlotState;
  readonly isProven?: boolean;
  readonly stream?: Partial<StreamView>;
  readonly server?: Partial<ServerSlotView>;
  readonly holder?: HolderView;
  /** Default for a standby: it could take over */
  readonly takeover?: TakeoverView | undefined;
  /** Each counts as one attempt; after the last one the stream is unproven, unless `isProven` is set */
  readonly failures?: readonly FailureView[];
}

/** A view of an idle stream. */
export function streamView(changes: Partial<StreamView> = {}): StreamView {
  return {
    receivedLsn: 0x1_0000_1000n,
    flushedLsn: 0x1_0000_1000n,
    lastInboundMs: MOMENT.nowMs - 1_000,
    silenceLimitMs: 60_000,
    lastProgressMs: MOMENT.nowMs - 1_000,
    isPaused: false,
    inFlightSinceMs: undefined,
    oldestCommitTimeMs: undefined,
    areBrokersReachable: true,
    ...changes,
  };
}

/** A view of a healthy slot. */
export function serverView(changes: Partial<ServerSlotView> = {}): ServerSlotView {
  return {
    walStatus: 'reserved',
    retainedWalBytes: 4096,
    safeWalBytes: undefined,
    confirmedFlushLsn: undefined,
    serverLsn: 0x1_0000_1000n,
    activePid: 42,
    ...changes,
  };
}

/** The status of a stream that streams and is idle, with these changes. */
export function createStatus(changes: StatusChanges = {}): SlotStatus {
  const { slot = 'cdc_slot', state = 'streaming', failures = [], isProven = failures.length === 0 } = changes;
  const status = new SlotStatus({ database: 'db', slot, namespaces: ['default/default', 'invoice'] });
  status.stream = streamView(changes.stream);
  status.server = serverView(changes.server);
  status.holder = changes.holder;
  if (state === 'standby') status.takeover = 'takeover' in changes ? changes.takeover : { failure: undefined };
  for (const failure of failures) status.noteFailure(failure);
  if (isProven) status.noteProven();
  status.enter(state);
  return status;
}
