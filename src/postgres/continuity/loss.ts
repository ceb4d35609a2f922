/** Changes that cannot be streamed any more, and the errors that stop a stream which is not the same as before. */
import { LossError, SourceError } from '../../errors.ts';
import { formatLsn, type Lsn } from '../../lsn.ts';
import { quoteIdentifier } from '../client/quote.ts';

/** Changes that cannot be streamed any more, for one reason or for several that were found together. */
export interface Loss {
  /**
   * Start of the loss: changes after it are lost. It identifies the loss when it is accepted, so every attempt finds the same
   * LSN. A loss at an LSN that was accepted before is identified by the next byte, at which no commit ends
   */
  readonly fromLsn: Lsn;
  /** Undefined where the end cannot be known */
  readonly toLsn: Lsn | undefined;
  /** What happened; each completes `Cannot continue after ...:` */
  readonly details: readonly string[];
  /** The slot exists but must not be streamed from: accepting the loss means replacing it */
  readonly needsNewSlot: boolean;
  /** The server was restored to a state before what was delivered; its WAL will pass that position */
  readonly isSetBack?: boolean | undefined;
  /** Namespaces whose publications were altered, which an operator can undo without a trace */
  readonly altered: readonly string[];
}

/** The stream that an error is about. */
export interface StreamName {
  /** db_ref of the configuration */
  readonly databaseRef: string;
  readonly slot: string;
}

/** The error of a stream that waits until its loss is accepted. */
export function lossError(
  { fromLsn, toLsn, details }: Pick<Loss, 'fromLsn' | 'toLsn' | 'details'>,
  { databaseRef, slot }: StreamName,
): LossError {
  const from = formatLsn(fromLsn);
  const range = toLsn === undefined ? `from ${from} on` : `from ${from} to ${formatLsn(toLsn)}`;
  return new LossError(`Cannot continue after ${from}: ${details.join('; ')}`, {
    place: { database: databaseRef, slot, lsn: from },
    advice:
      `Changes ${range} cannot be streamed: compare the tables with the topics. To continue without them, set ` +
      `slots.${databaseRef}.${slot}.accept_loss_after: ${from} in the configuration and restart the service`,
  });
}

/** Publications that the stream was using are gone: rows were written that can never be streamed. */
export function droppedPublicationError(
  publications: readonly string[],
  { confirmedLsn, ...stream }: StreamName & { readonly confirmedLsn: Lsn },
): LossError {
  const names = publications.map(quoteIdentifier).join(', ');
  const details = [`publication ${names} was dropped while it was in use`];
  return lossError({ fromLsn: confirmedLsn, toLsn: undefined, details }, stream);
}

/** Nothing is lost yet, but following this server would lose changes. */
export function wrongServerError(knownTimeline: number, timeline: number): SourceError {
  return new SourceError(
    `Cannot follow the server: it is on timeline ${timeline}, but this stream followed timeline ${knownTimeline} before, so it is a former primary`,
    {
      code: 'former_primary',
      advice:
        'Stop this server, or point host or hosts of the database at the new primary. If this is the right server, because it was restored from a backup, restart the service',
    },
  );
}
