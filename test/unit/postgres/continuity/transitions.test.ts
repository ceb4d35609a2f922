import { describe, expect, test } from 'bun:test';
import { type Continuity, judgeContinuity, type Loss } from '../../../../src/postgres/continuity/judge.ts';
import type { SlotLedger } from '../../../../src/postgres/continuity/ledger.ts';
import { type LedgerContext, ledgerOfLoss, ledgerOfStart } from '../../../../src/postgres/continuity/transitions.ts';

const known: SlotLedger = {
  systemIdentifier: '1',
  timeline: 1,
  instance: 'us',
  revision: 5,
  fromLsn: 10n,
  confirmedLsn: 100n,
  deliveredLsn: 90n,
  closed: false,
  publicationOids: new Map([['a', 1]]),
  entryOids: new Map(),
  left: new Map(),
  acceptedLsn: undefined,
};
const context: LedgerContext = { known, foundLedger: known, systemIdentifier: '1', timeline: 2, instance: 'us' };
const goesOn: Continuity = {
  verdict: 'goes-on',
  confirmedLsn: 100n,
  timelineChanged: undefined,
  movedFromLsn: undefined,
};
const loss: Loss = { fromLsn: 100n, toLsn: 200n, details: ['x'], needsNewSlot: false, altered: [] };

describe('ledgerOfStart', () => {
  const publicationOids = new Map([['a', 2]]);
  const at = (confirmedFlushLsn: bigint) => ({ confirmedFlushLsn, publicationOids, entryOids: new Map() });

  test('begins a ledger where nothing is known', () => {
    const nothing = { ...context, known: undefined, foundLedger: undefined };
    expect(ledgerOfStart({ verdict: 'first' }, nothing, at(50n))).toEqual({
      systemIdentifier: '1',
      timeline: 2,
      instance: 'us',
      revision: 1,
      fromLsn: 50n,
      confirmedLsn: 50n,
      deliveredLsn: 50n,
      closed: false,
      publicationOids,
      entryOids: new Map(),
      left: new Map(),
      acceptedLsn: undefined,
    });
  });

  test.each<[string, bigint, Partial<LedgerContext>, Partial<SlotLedger>]>([
    ['where it stopped', 100n, {}, { revision: 6, fromLsn: 10n, confirmedLsn: 100n, deliveredLsn: 90n }],
    [
      'behind what is delivered, after a crash of the server',
      60n,
      {},
      { fromLsn: 10n, confirmedLsn: 100n, deliveredLsn: 90n },
    ],
    ['before it began, after a crash of the server', 5n, {}, { fromLsn: 5n, confirmedLsn: 100n }],
    [
      'where a peer stopped',
      200n,
      { foundLedger: { ...known, instance: 'peer', revision: 8 } },
      { revision: 9, fromLsn: 10n, confirmedLsn: 200n, deliveredLsn: 200n },
    ],
    ['with its ledger gone', 100n, { foundLedger: undefined }, { revision: 1, fromLsn: 10n }],
  ])('goes on %s', (_, position, change, expected) => {
    expect(ledgerOfStart(goesOn, { ...context, ...change }, at(position))).toMatchObject(expected);
  });

  test('after an accepted loss counts from the slot alone', () => {
    const accepted = { verdict: 'loss', loss } as const;
    expect(ledgerOfStart(accepted, context, at(60n))).toMatchObject({
      fromLsn: 10n,
      confirmedLsn: 60n,
      deliveredLsn: 60n,
      acceptedLsn: 100n,
    });
    expect(ledgerOfStart(accepted, context, at(95n))).toMatchObject({ confirmedLsn: 95n, deliveredLsn: 90n });
    expect(ledgerOfStart(accepted, { ...context, systemIdentifier: '2' }, at(60n))).toMatchObject({
      systemIdentifier: '2',
      fromLsn: 60n,
      confirmedLsn: 60n,
      deliveredLsn: 60n,
      entryOids: new Map(),
      left: new Map(),
    });
  });

  test('counts from where a new primary branched off, if no record lies behind', () => {
    expect(ledgerOfStart({ ...goesOn, confirmedLsn: 95n }, context, at(60n))).toMatchObject({
      confirmedLsn: 95n,
      deliveredLsn: 90n,
    });
  });

  test('remembers the loss that was accepted last', () => {
    const foundLedger = { ...known, acceptedLsn: 40n };
    expect(ledgerOfStart(goesOn, { ...context, known: undefined, foundLedger }, at(100n)).acceptedLsn).toBe(40n);
  });

  test('remembers where namespaces were left, until they are streamed again', () => {
    const others = {
      ...known,
      entryOids: new Map(),
      left: new Map([
        ['a', { oid: 1, lsn: 5n }],
        ['old', { oid: 7, lsn: 50n }],
      ]),
    };
    const foundLedger = {
      ...others,
      publicationOids: new Map([
        ['b', 2],
        ['c', 3],
      ]),
    };
    expect(ledgerOfStart(goesOn, { ...context, known: undefined, foundLedger }, at(80n)).left).toEqual(
      new Map([
        ['old', { oid: 7, lsn: 50n }],
        ['b', { oid: 2, lsn: 100n }],
        ['c', { oid: 3, lsn: 100n }],
      ]),
    );
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
    ['the server is another one, and has none', { systemIdentifier: '2', foundLedger: undefined }],
    [
      'the server is another one, with a ledger of its own',
      { systemIdentifier: '2', foundLedger: { ...known, systemIdentifier: '2' } },
    ],
  ])('writes nothing when %s', (_, change) => {
    expect(ledgerOfLoss(loss, { ...context, ...change })).toBeUndefined();
  });

  test('writes down what only the process knows also when the ledger came along to another server', () => {
    const upgraded = { ...context, systemIdentifier: '2', foundLedger: { ...known, confirmedLsn: 40n } };
    const written = ledgerOfLoss(loss, upgraded)!;
    expect(written).toEqual({ ...known, closed: true });
    expect(ledgerOfLoss(loss, { ...upgraded, foundLedger: written })).toBeUndefined();
    expect(ledgerOfLoss({ ...loss, needsNewSlot: true }, upgraded)).toEqual(written);
    expect(ledgerOfLoss(loss, { ...upgraded, known: undefined })).toBeUndefined();
  });

  test('keeps that the server was set back, which its WAL will pass', () => {
    const setBack = { ...loss, isSetBack: true };
    const written = ledgerOfLoss(setBack, { ...context, instance: 'next' })!;
    expect(written).toEqual({
      ...known,
      instance: 'next',
      revision: known.revision + 1,
      closed: true,
      isSetBack: true,
    });
    expect(ledgerOfLoss(setBack, { ...context, foundLedger: written })).toBeUndefined();
    expect(
      ledgerOfLoss(setBack, { ...context, known: undefined, foundLedger: { ...known, closed: true } }),
    ).toMatchObject({
      isSetBack: true,
    });
  });

  test('keeps that a publication was altered, which a person can mend without a trace', () => {
    const altered = { ...loss, altered: ['a'] };
    const written = ledgerOfLoss(altered, context)!;
    expect(written).toEqual({ ...known, revision: 6, closed: true, publicationOids: new Map([['a', 0]]) });
    expect(ledgerOfLoss(altered, { ...context, foundLedger: written })).toBeUndefined();
    expect(ledgerOfLoss(altered, { ...context, foundLedger: { ...known, closed: true } })).toEqual(written);
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
      deliveredLsn: 50n,
      closed: true,
      publicationOids: new Map(),
      entryOids: new Map(),
      left: new Map(),
      acceptedLsn: undefined,
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
