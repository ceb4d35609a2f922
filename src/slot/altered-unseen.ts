import { formatLsn, type Lsn } from '../lsn.ts';
import type { PublicationFacts } from '../postgres/catalog/publications.ts';
import type { SlotWarning } from '../status/slot-warnings.ts';

/**
 * Notices publications that were altered and put right between two looks: the catalog says so by the transactions that wrote
 * its rows, and nothing says what a publication left out meanwhile. Of one session, whose preparation has made its own changes.
 */
export class UnseenAlterations {
  readonly #seen = new Map<string, PublicationFacts>();
  readonly #ranges = new Map<string, { readonly fromLsn: Lsn; readonly toLsn: Lsn }>();

  /** Takes what a look has seen, of publications that are as they must be; returns a warning for each that was altered. */
  note(publications: ReadonlyMap<string, PublicationFacts>): SlotWarning[] {
    for (const [name, publication] of publications) {
      const before = this.#seen.get(name);
      this.#seen.set(name, publication);
      if (before === undefined || before.oid !== publication.oid || before.version === publication.version) continue;
      const fromLsn = this.#ranges.get(name)?.fromLsn ?? before.serverLsn;
      this.#ranges.set(name, { fromLsn, toLsn: publication.serverLsn });
    }
    return Array.from(this.#ranges, ([name, { fromLsn, toLsn }]) => ({
      code: 'publication_touched',
      subject: name,
      message:
        `Publication "${name}" was altered between ${formatLsn(fromLsn)} and ${formatLsn(toLsn)}, and is as it must be again: rows that it ` +
        'did not publish meanwhile are not delivered, and nothing shows whether there are any',
      advice:
        'If only its owner was changed, nothing is missing. Otherwise compare the tables of the namespace with its topics ' +
        'for this range; the warning ends with the next start of the service',
    }));
  }
}
