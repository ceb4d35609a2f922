import { describe, expect, test } from 'bun:test';
import { judgeContinuity, type Loss } from '../../src/postgres/continuity.ts';
import type { SlotLedger } from '../../src/postgres/ledger.ts';
import { type LedgerContext, ledgerOfLoss, ledgerOfStart } from '../../src/postgres/next-ledger.ts';

const known: SlotLedger = {
  systemIdentifier: '1',
  timeline: 1,
  instance: 'us',
  revision: 5,
  fromLsn: 10n,
  confirmedLsn: 100n,
  closed: false,
  publicationOids: new Map([['a', 1]]),
};
const context: LedgerContext = { known, foundLedger: known, systemIdentifier: '1', timeline: 2, instance: 'us' };
const goesOn = { verdict: 'goes-on', timelineChanged: undefined, movedFromLsn: undefined } as const;
const loss: Loss = { fromLsn: 100n, toLsn: 200n, details: ['x'], needsNewSlot: false };

describe('ledgerOfStart', () => {
  const publicationOids = new Map([['a', 2]]);
  const at = (confirmedFlushLsn: bigint) => ({ confirmedFlushLsn, publicationOids });

  test('begins a ledger where nothing is known', () => {
    const nothing = { ...context, known: undefined, foundLedger: undefined };
    expect(ledgerOfStart({ verdict: 'first' }, nothing, at(50n))).toEqual({
      systemIdentifier: '1',
      timeline: 2,
      instance: 'us',
      revision: 1,
      fromLsn: 50n,
      confirmedLsn: 50n,
      closed: false,
      publicationOids,
    });
  });

  test.each<[string, bigint, Partial<LedgerContext>, Partial<SlotLedger>]>([
    ['where it stopped', 100n, {}, { revision: 6, fromLsn: 10n, confirmedLsn: 100n }],
    ['behind what is delivered, after a crash of the server', 60n, {}, { fromLsn: 10n, confirmedLsn: 100n }],
    ['before it began, after a crash of the server', 5n, {}, { fromLsn: 5n, confirmedLsn: 100n }],
    [
      'where a peer stopped',
      200n,
      { foundLedger: { ...known, instance: 'peer', revision: 8 } },
      { revision: 9, fromLsn: 10n, confirmedLsn: 200n },
    ],
    ['with its ledger gone', 100n, { foundLedger: undefined }, { revision: 1, fromLsn: 10n }],
    ['on another system', 60n, { systemIdentifier: '2' }, { systemIdentifier: '2', fromLsn: 60n, confirmedLsn: 60n }],
  ])('goes on %s', (_, position, change, expected) => {
    expect(ledgerOfStart(goesOn, { ...context, ...change }, at(position))).toMatchObject(expected);
  });

  test('after an accepted loss counts from the slot alone', () => {
    expect(ledgerOfStart({ verdict: 'loss', loss }, context, at(60n))).toMatchObject({
      fromLsn: 10n,
      confirmedLsn: 60n,
    });
  });
});

describe('ledgerOfLoss', () => {
  test('writes down what only the process knows, once', () => {
    const written = ledgerOfLoss(loss, context);
    expect(written).toEqual({ ...known, closed: true });
    expect(ledgerOfLoss(loss, { ...context, foundLedger: written })).toBeUndefined();
    expect(ledgerOfLoss(loss, { ...context, foundLedger: undefined })).toEqual({ ...known, closed: true });
  });

  test.each<[string, Partial<LedgerContext>]>([
    ['it is the ledger that knows', { known: undefined }],
    ['a peer has gone on', { foundLedger: { ...known, instance: 'peer', revision: 8 } }],
    ['the server is another one', { systemIdentifier: '2' }],
  ])('writes nothing when %s', (_, change) => {
    expect(ledgerOfLoss(loss, { ...context, ...change })).toBeUndefined();
  });

  test('keeps the beginning of a loss whose slot will go, or will be passed by the WAL', () => {
    const setBack: Loss = { ...loss, fromLsn: 50n, needsNewSlot: true };
    const written = ledgerOfLoss(setBack, context)!;
    expect(written).toEqual({ ...known, revision: 6, confirmedLsn: 50n, closed: true });
    expect(ledgerOfLoss(setBack, { ...context, foundLedger: written })).toBeUndefined();
    expect(ledgerOfLoss(setBack, { ...context, known: undefined, foundLedger: undefined })).toEqual({
      systemIdentifier: '1',
      timeline: 2,
      instance: 'us',
      revision: 1,
      fromLsn: 50n,
      confirmedLsn: 50n,
      closed: true,
      publicationOids: new Map(),
    });
    // With it, the slot that has gone is the same loss.
    const gone = judgeContinuity({
      known,
      ledger: written,
      isLedgerRefused: false,
      server: { systemIdentifier: '1', timeline: 1, currentLsn: 1000n, history: [] },
      slot: undefined,
      namespaces: [],
      publications: new Map(),
    });
    expect(gone).toMatchObject({ verdict: 'loss', loss: { fromLsn: 50n } });
  });
});
