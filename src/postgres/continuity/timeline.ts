/**
 * Timelines: the branches of a server's WAL. A promoted standby starts a new one, whose history holds the LSN at which it
 * left each earlier one.
 * Source: PostgreSQL manual, "Timelines", and TIMELINE_HISTORY in "Streaming Replication Protocol".
 */
import type { DatabaseEndpoint } from '../../config/config.ts';
import { MalformedError } from '../../errors.ts';
import { type Lsn, parseLsn } from '../../lsn.ts';
import { runReplicationCommand } from '../replication/command.ts';

/** An ancestor of a timeline. */
export interface TimelineSwitch {
  readonly timeline: number;
  /** End of its WAL for the descendant, which never had what the ancestor wrote after it */
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
      throw new MalformedError('timeline history', offset, 'a line has no timeline and LSN');
    }
    offset += Buffer.byteLength(line) + 1;
  }
  return switches;
}

/**
 * The LSN up to which a server with this history shares the WAL of `timeline`. It is unknown for a timeline that is not an
 * ancestor; the end of the last ancestor before it is then the least upper bound.
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

/** Reads the history of a timeline from the server. */
export async function readTimelineHistory(
  endpoint: DatabaseEndpoint,
  { timeline, slot }: { readonly timeline: number; readonly slot: string },
): Promise<TimelineSwitch[]> {
  // The first timeline has no history file.
  if (timeline <= 1) return [];
  const applicationName = `cdc-notifier ${slot} history`;
  const [row] = await runReplicationCommand(endpoint, { command: `TIMELINE_HISTORY ${timeline}`, applicationName });
  return parseTimelineHistory(String(row?.content));
}
