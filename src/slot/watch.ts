import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { PublishSettings } from '../config/config.ts';
import { within } from '../deadline.ts';
import { SourceError } from '../errors.ts';
import { explainFailure } from '../failure-policy.ts';
import { formatLsn, type Lsn } from '../lsn.ts';
import { entriesOf, readPublishing } from '../postgres/catalog/publications.ts';
import { readSlot, readSyncState } from '../postgres/catalog/slots.ts';
import { processesTable } from '../postgres/catalog/tables.ts';
import type { OwnedConnection } from '../postgres/client/owned-connection.ts';
import { newerConfigurations } from '../postgres/continuity/configuration-order.ts';
import { readOtherReaders } from '../postgres/continuity/other-readers.ts';
import { describePublicationHazards } from '../postgres/hazards/publication-hazards.ts';
import { neededRelease } from '../postgres/hazards/server-hazards.ts';
import { findSharingHazards, type SharingHazard } from '../postgres/hazards/sharing-hazards.ts';
import { findTableHazards, type TableHazard } from '../postgres/hazards/table-hazards.ts';
import type { MarkedDatabase } from '../postgres/replication/publication-marker.ts';
import { walsenderName } from '../postgres/replication/stream.ts';
import { hazardAdvice, sharingAdvice } from '../postgres/setup/hazard-advice.ts';
import type { PreparedSlot } from '../postgres/setup/prepare-slot.ts';
import type { SlotStatus } from '../status/slot-status.ts';
import type { SlotWarning } from '../status/slot-warnings.ts';
import { UnseenAlterations } from './altered-unseen.ts';
import type { LedgerKeeper } from './ledger-keeper.ts';
import { precedenceOver, SupersededStream } from './superseded.ts';

const LOOK_INTERVAL_MS = 5_000;
/** After a look that failed: a connection that was ended once is open again by then */
const SECOND_LOOK_MS = 1_000;
/** A control connection that is silent for longer is half-open, and would not report a shutdown of the server */
const ANSWER_TIMEOUT_MS = 10_000;

/** Options of a watch. */
export interface SlotWatchOptions {
  readonly control: OwnedConnection;
  /** Why the control connection could not be opened again */
  readonly controlError: () => unknown;
  readonly slot: string;
  /** Settings of each namespace */
  readonly publishing: ReadonlyMap<string, PublishSettings>;
  /** Of this process: `configurationId` */
  readonly configuration: string;
  /** True for a slot that the configuration names */
  readonly isConfiguredSlot: (slot: string) => boolean;
  readonly prepared: PreparedSlot;
  /** Labels of the status types by namespace, which each look renews */
  readonly statusLabels: Map<string, readonly string[]>;
  readonly ledger: LedgerKeeper;
  readonly status: SlotStatus;
  readonly log: Logger;
  /** Ends the watch */
  readonly signal: AbortSignal;
}

/**
 * Looks at slot, publications and tables on the server at intervals: for the status and its warnings, to notice what leaves
 * rows out, and to keep the slot's ledger up to date. Runs until the signal aborts; never resolves before.
 * @throws SourceError when the server does not answer, a publication was altered, or rows are hidden
 */
export async function watchSlot(options: SlotWatchOptions): Promise<void> {
  const { ledger, status, log, signal } = options;
  const superseded = new SupersededStream(options.slot);
  const unseen = new UnseenAlterations();
  let failures = 0;
  while (!signal.aborted) {
    const confirmedLsn = ledger.confirmedLsn;
    const seen = await within(ANSWER_TIMEOUT_MS, 'look at the slot', look(options, { superseded, unseen }));
    // What is lost is judged by the next start: the server goes on without an error, and leaves rows out.
    if (seen instanceof SourceError) throw seen;
    if (signal.aborted) return;
    if ('cause' in seen) {
      failures += 1;
      if (failures > 1) status.warnings.update('watch', [blindWarning(options, seen.cause)], log);
    } else {
      failures = 0;
      status.warnings.update('watch', [], log);
      ledger.noteWatched(confirmedLsn, seen.entryOids);
      await within(
        ANSWER_TIMEOUT_MS,
        'write the ledger',
        ledger.keep().catch(() => {}),
      );
    }
    await sleep(failures === 1 ? SECOND_LOOK_MS : LOOK_INTERVAL_MS, undefined, { signal }).catch(() => {});
  }
}

/** Nothing is left out. */
interface Sound {
  /** Entries of the publications, by namespace */
  readonly entryOids: ReadonlyMap<string, readonly number[]>;
}

/**
 * Returns why the stream must end, as rows are left out, or why nothing could be seen. To open a lost control connection
 * again is left to the shutdown watch, so that one attempt to log in is made at a time.
 */
async function look(
  options: SlotWatchOptions,
  { superseded, unseen }: { readonly superseded: SupersededStream; readonly unseen: UnseenAlterations },
): Promise<SourceError | Sound | { readonly cause: unknown }> {
  const { control, controlError, slot, publishing: settings, prepared, ledger, status, log } = options;
  const namespaces = [...settings.keys()];
  const { serverMajor } = prepared;
  if (control.socket?.destroyed !== false) return { cause: controlError() };
  try {
    const facts = await readSlot(control.sql, slot, serverMajor);
    if (facts !== undefined) status.server = facts;
    const syncState = facts?.activePid === undefined ? undefined : await readSyncState(control.sql, facts.activePid);
    status.warnings.update('synchronous', synchronousWarnings(slot, syncState), log);
    status.warnings.update('server', versionWarnings(slot, prepared.serverVersionNumber), log);
    await lookAtConfigurations(options, superseded);
    const publishing = await readPublishing(control.sql, namespaces, serverMajor);
    const otherReaders = await readOtherReaders(control.sql, options.isConfiguredSlot);
    const sharing = findSharingHazards(settings, publishing, { database: prepared, otherReaders });
    const warnings = sharing.map((hazard) => warnOfSharing(hazard, prepared));
    status.warnings.update('publications', warnings, log);
    for (const namespace of namespaces) {
      const processes = publishing.tables.get(processesTable(namespace));
      if (processes !== undefined) options.statusLabels.set(namespace, processes.statusLabels);
    }
    const alterations = describePublicationHazards(namespaces, publishing, ledger.entryOids);
    const hazards = findTableHazards(namespaces, publishing);
    status.warnings.update('tables', hazards.filter(({ effect }) => effect !== 'hides_rows').map(warnOf), log);
    // The session ends at once then, and closes the ledger.
    if (alterations.length > 0) return alteredPublicationError(alterations);
    const hidden = hazards.find(({ effect }) => effect === 'hides_rows');
    if (hidden !== undefined) return hiddenRowsError(hidden, ledger.watchedLsn);
    status.warnings.update('alterations', unseen.note(publishing.publications), log);
    return {
      entryOids: new Map(
        Array.from(publishing.publications, ([name, one]) => [name, entriesOf(one, publishing.tables).entryOids]),
      ),
    };
  } catch (cause) {
    return { cause };
  }
}

async function lookAtConfigurations(
  { control, slot, configuration, ledger, status, log }: SlotWatchOptions,
  superseded: SupersededStream,
): Promise<void> {
  const newer = newerConfigurations(ledger.configurations, configuration);
  if (newer.length === 0) return status.warnings.update('configuration', [], log);
  const precedence = await precedenceOver(newer, control.sql, slot);
  status.warnings.update('configuration', [superseded.warning(precedence)], log);
  if (superseded.isSettled(precedence, performance.now())) await ledger.settleConfiguration(configuration);
}

/** `potential` becomes `sync` when a standby is lost, so that commits then wait for Kafka. */
const SYNCHRONOUS_STATES: readonly (string | undefined)[] = ['sync', 'quorum', 'potential'];

function synchronousWarnings(slot: string, syncState: string | undefined): SlotWarning[] {
  if (!SYNCHRONOUS_STATES.includes(syncState)) return [];
  const message =
    `synchronous_standby_names counts the walsender of the slot as a standby (sync_state ${syncState}): commits of the database may ` +
    'wait for Kafka, or count as safe when Kafka alone has them';
  const advice =
    `Name the standbys instead of *, for example: ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (pg2, pg3)'; SELECT pg_reload_conf(); ` +
    `the walsender is called "${walsenderName(slot)}"`;
  return [{ code: 'synchronous_standby', subject: slot, message, advice }];
}

function versionWarnings(slot: string, versionNumber: number): SlotWarning[] {
  const release = neededRelease(versionNumber);
  if (release === undefined) return [];
  const message =
    'This release of PostgreSQL may stream later changes of a table with a publication as it was before it was altered: rows ' +
    'are then missing without a trace';
  const advice = `Update the server to PostgreSQL ${release} or later, and do not alter publications by hand before that`;
  return [{ code: 'outdated_server', subject: slot, message, advice }];
}

function blindWarning({ ledger, slot }: SlotWatchOptions, cause: unknown): SlotWarning {
  const { message, advice } = explainFailure(cause);
  return {
    code: 'watch_blind',
    subject: slot,
    message:
      'The publications and tables of the slot cannot be watched, because the server does not answer on the control connection: ' +
      `${message}. An alteration after ${formatLsn(ledger.watchedLsn)} is noticed only when it is back`,
    advice: advice ?? 'See the log of the server: it streams, but does not let a second connection in',
  };
}

function warnOf(hazard: TableHazard): SlotWarning {
  const { code, table, detail } = hazard;
  return { code, subject: table, message: detail, advice: hazardAdvice(hazard) };
}

function warnOfSharing(hazard: SharingHazard, database: MarkedDatabase): SlotWarning {
  const { code, namespace, detail } = hazard;
  return { code, subject: namespace, message: detail, advice: sharingAdvice(hazard, database) };
}

function alteredPublicationError(hazards: readonly string[]): SourceError {
  return new SourceError(`Cannot continue: publications were changed while they were in use: ${hazards.join('; ')}`, {
    code: 'publication_altered',
  });
}

function hiddenRowsError(hazard: TableHazard, watchedLsn: Lsn): SourceError {
  const { code, namespace, table, detail } = hazard;
  const advice = hazardAdvice(hazard);
  const since = formatLsn(watchedLsn);
  return new SourceError(`Cannot continue: ${detail}. Rows that were written after ${since} may be missing in Kafka`, {
    code,
    advice,
    place: { namespace, table },
  });
}
