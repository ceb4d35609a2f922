/**
 * Timelines: the branches of a server's WAL. A promoted standby begins a new one, whose history says at which position it
 * left which other.
 * Source: PostgreSQL manual, "Timelines", and TIMELINE_HISTORY in "Streaming Replication Protocol".
 */
import type { DatabaseEndpoint } from '../../config/config.ts';
import { MalformedError } from '../../errors.ts';
import { type Lsn, parseLsn } from '../../lsn.ts';
import { runReplicationCommand } from '../replication/command.ts';

/** An ancestor of a timeline. */
export interface TimelineSwitch {
  readonly timeline: number;
  /** Where its WAL ends for the descendant; what the ancestor wrote behind it, the descendant never had */
  readonly endLsn: Lsn;
}

/** A line of a history file: timeline, LSN, reason, with white space in between; `#` begins a comment. */
const LINE = /^\s*(?<timeline>[0-9]+)\s+(?<lsn>[0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})(?:\s.*)?$/;
const NO_ENTRY = /^\s*(?:#.*)?$/;

/** Reads the text of a history file, oldest ancestor first. @throws MalformedError */
export function parseTimelineHistory(text: string): TimelineSwitch[] {
  let offset = 0;
  const switches: TimelineSwitch[] = [];
  for (const line of text.split('\n')) {
    const groups = LINE.exec(line)?.groups;
    const timeline = Number(groups?.timeline);
    if (groups !== undefined && timeline <= 0xffff_ffff) {
      switches.push({ timeline, endLsn: parseLsn(groups.lsn!) });
    } else if (!NO_ENTRY.test(line)) {
      throw new MalformedError('timeline history', offset, 'a line is no timeline with a position');
    }
    offset += Buffer.byteLength(line) + 1;
  }
  return switches;
}

/**
 * The position up to which a server with this history shares the WAL of `timeline`. For a timeline that is none of its
 * ancestors that is not known; the end of the last ancestor before it is the least upper bound that can be had.
 */
export function sharedUpTo(
  history: readonly TimelineSwitch[],
  timeline: number,
): { readonly lsn: Lsn; readonly isAncestor: boolean } {
  const own = history.find((ancestor) => ancestor.timeline === timeline);
  if (own !== undefined) return { lsn: own.endLsn, isAncestor: true };
  const before = history.filter((ancestor) => ancestor.timeline < timeline).at(-1);
  return { lsn: before?.endLsn ?? 0n, isAncestor: false };
}

/** Asks the server for the history of a timeline. */
export async function readTimelineHistory(
  endpoint: DatabaseEndpoint,
  { timeline, slot }: { readonly timeline: number; readonly slot: string },
): Promise<TimelineSwitch[]> {
  // The first timeline has none.
  if (timeline <= 1) return [];
  const applicationName = `cdc-notifier ${slot} history`;
  const [row] = await runReplicationCommand(endpoint, { command: `TIMELINE_HISTORY ${timeline}`, applicationName });
  return parseTimelineHistory(String(row?.content));
}
