import { describe, expect, test } from 'bun:test';
import { type Continuity, judgeContinuity } from '../../../../src/postgres/continuity/judge.ts';
import type { SlotLedger } from '../../../../src/postgres/continuity/ledger.ts';
import type { Loss } from '../../../../src/postgres/continuity/loss.ts';
import { type LedgerContext, nextOnLoss, nextOnStart } from '../../../../src/postgres/continuity/transitions.ts';

const remembered: SlotLedger = {
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
  clusterIds: new Map(),
  configurations: ['0badc0de'],
  acceptedLsn: undefined,
};
const context: LedgerContext = {
  remembered,
  stored: remembered,
  systemIdentifier: '1',
  timeline: 2,
  instance: 'us',
  configuration: '0badc0de',
};
const continues: Continuity = {
  verdict: 'continues',
  confirmedLsn: 100n,
  timelineChanged: undefined,
  movedFromLsn: undefined,
};
const loss: Loss = { fromLsn: 100n, toLsn: 200n, details: ['x'], needsNewSlot: false, altered: [] };

describe('nextOnStart', () => {
  const publicationOids = new Map([['a', 2]]);
  const at = (confirmedFlushLsn: bigint) => ({ confirmedFlushLsn, publicationOids, entryOids: new Map() });

  test('starts a ledger where nothing is known', () => {
    const nothing = { ...context, remembered: undefined, stored: undefined };
    expect(nextOnStart({ verdict: 'first' }, nothing, at(50n))).toEqual({
      systemIdentifier: '1',
      timeline: 2,
      instance: 'us',
      revision: 1,
      fromLsn: 50n,
      confirmedLsn: 50n,
      deliveredLsn: 50n,
      watchedLsn: 50n,
      closed: false,
      publicationOids,
      entryOids: new Map(),
      left: new Map(),
      clusterIds: new Map(),
      configurations: ['0badc0de'],
      acceptedLsn: undefined,
    });
  });

  test.each<[string, bigint, Partial<LedgerContext>, Partial<SlotLedger>]>([
    ['where it stopped', 100n, {}, { revision: 6, fromLsn: 10n, confirmedLsn: 100n, deliveredLsn: 90n }],
    [
      'before the delivered position, after a crash of the server',
      60n,
      {},
      { fromLsn: 10n, confirmedLsn: 100n, deliveredLsn: 90n },
    ],
    ['before it began, after a crash of the server', 5n, {}, { fromLsn: 5n, confirmedLsn: 100n }],
    [
      'where a peer stopped',
      200n,
      { stored: { ...remembered, instance: 'peer', revision: 8 } },
      { revision: 9, fromLsn: 10n, confirmedLsn: 200n, deliveredLsn: 200n },
    ],
    ['with its ledger gone', 100n, { stored: undefined }, { revision: 1, fromLsn: 10n }],
  ])('continues %s', (_, position, change, expected) => {
    expect(nextOnStart(continues, { ...context, ...change }, at(position))).toMatchObject(expected);
  });

  test('after an accepted loss counts from the slot alone', () => {
    const accepted = { verdict: 'loss', loss } as const;
    expect(nextOnStart(accepted, context, at(60n))).toMatchObject({
      fromLsn: 10n,
      confirmedLsn: 60n,
      deliveredLsn: 60n,
      clusterIds: new Map(),
      configurations: ['0badc0de'],
      acceptedLsn: 100n,
    });
    expect(nextOnStart(accepted, context, at(95n))).toMatchObject({ confirmedLsn: 95n, deliveredLsn: 90n });
    expect(nextOnStart(accepted, { ...context, systemIdentifier: '2' }, at(60n))).toMatchObject({
      systemIdentifier: '2',
      fromLsn: 60n,
      confirmedLsn: 60n,
      deliveredLsn: 60n,
      entryOids: new Map(),
      left: new Map(),
    });
  });

  test('counts from the LSN where a new primary branched off, if no record was delivered after it', () => {
    expect(nextOnStart({ ...continues, confirmedLsn: 95n }, context, at(60n))).toMatchObject({
      confirmedLsn: 95n,
      deliveredLsn: 90n,
    });
  });

  test('remembers the loss that was accepted last', () => {
    const stored = { ...remembered, acceptedLsn: 40n };
    expect(nextOnStart(continues, { ...context, remembered: undefined, stored }, at(100n)).acceptedLsn).toBe(40n);
  });

  test('remembers where namespaces were left, until they are streamed again', () => {
    const others = {
      ...remembered,
      entryOids: new Map(),
      left: new Map([
        ['a', { oid: 1, lsn: 5n }],
        ['old', { oid: 7, lsn: 50n }],
      ]),
    };
    const stored = {
      ...others,
      publicationOids: new Map([
        ['b', 2],
        ['c', 3],
      ]),
    };
    expect(nextOnStart(continues, { ...context, remembered: undefined, stored }, at(80n)).left).toEqual(
      new Map([
        ['old', { oid: 7, lsn: 50n }],
        ['b', { oid: 2, lsn: 100n }],
        ['c', { oid: 3, lsn: 100n }],
      ]),
    );
  });
});

describe('nextOnLoss', () => {
  test('writes down what only the process knows, once', () => {
    const written = nextOnLoss(loss, context);
    expect(written).toEqual({ ...remembered, closed: true });
    expect(nextOnLoss(loss, { ...context, stored: written })).toBeUndefined();
    expect(nextOnLoss(loss, { ...context, stored: undefined })).toEqual({ ...remembered, closed: true });
  });

  test.each<[string, Partial<LedgerContext>]>([
    ['it is the ledger that knows', { remembered: undefined }],
    ['a peer has continued', { stored: { ...remembered, instance: 'peer', revision: 8 } }],
    ['the server is another one, and has none', { systemIdentifier: '2', stored: undefined }],
    [
      'the server is another one, with a ledger of its own',
      { systemIdentifier: '2', stored: { ...remembered, systemIdentifier: '2' } },
    ],
  ])('writes nothing when %s', (_, change) => {
    expect(nextOnLoss(loss, { ...context, ...change })).toBeUndefined();
  });

  test('writes down what only the process knows also when the ledger came along to another server', () => {
    const upgraded = { ...context, systemIdentifier: '2', stored: { ...remembered, confirmedLsn: 40n } };
    const written = nextOnLoss(loss, upgraded)!;
    expect(written).toEqual({ ...remembered, closed: true });
    expect(nextOnLoss(loss, { ...upgraded, stored: written })).toBeUndefined();
    expect(nextOnLoss({ ...loss, needsNewSlot: true }, upgraded)).toEqual(written);
    expect(nextOnLoss(loss, { ...upgraded, remembered: undefined })).toBeUndefined();
  });

  test('keeps that the server was set back, which its WAL will pass', () => {
    const setBack = { ...loss, isSetBack: true };
    const written = nextOnLoss(setBack, { ...context, instance: 'next' })!;
    expect(written).toEqual({
      ...remembered,
      instance: 'next',
      revision: remembered.revision + 1,
      closed: true,
      isSetBack: true,
    });
    expect(nextOnLoss(setBack, { ...context, stored: written })).toBeUndefined();
    expect(
      nextOnLoss(setBack, { ...context, remembered: undefined, stored: { ...remembered, closed: true } }),
    ).toMatchObject({
      isSetBack: true,
    });
  });

  test('keeps that a publication was altered, which an operator can undo without a trace', () => {
    const altered = { ...loss, altered: ['a'] };
    const written = nextOnLoss(altered, context)!;
    expect(written).toEqual({ ...remembered, revision: 6, closed: true, publicationOids: new Map([['a', 0]]) });
    expect(nextOnLoss(altered, { ...context, stored: written })).toBeUndefined();
    expect(nextOnLoss(altered, { ...context, stored: { ...remembered, closed: true } })).toEqual(written);
  });

  test('keeps the beginning of a loss whose slot will go, or will be passed by the WAL', () => {
    const setBack: Loss = { ...loss, fromLsn: 50n, needsNewSlot: true };
    const written = nextOnLoss(setBack, context)!;
    expect(written).toEqual({ ...remembered, revision: 6, confirmedLsn: 50n, closed: true });
    expect(nextOnLoss(setBack, { ...context, stored: written })).toBeUndefined();
    expect(nextOnLoss(setBack, { ...context, remembered: undefined, stored: undefined })).toEqual({
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
      clusterIds: new Map(),
      configurations: [],
      acceptedLsn: undefined,
    });
    // With it, the slot that has gone is the same loss.
    const gone = judgeContinuity({
      remembered,
      stored: written,
      isLedgerRefused: false,
      server: { systemIdentifier: '1', timeline: 1, currentLsn: 1000n, history: [] },
      slot: undefined,
      namespaces: [],
      publications: new Map(),
    });
    expect(gone).toMatchObject({ verdict: 'loss', loss: { fromLsn: 50n } });
  });
});

test('a configuration that takes the slot is the newest one, unless it is known', () => {
  const start = { confirmedFlushLsn: 100n, publicationOids: new Map(), entryOids: new Map() };
  const order = (configuration: string, stored = remembered) =>
    nextOnStart({ verdict: 'first' }, { ...context, configuration, stored }, start).configurations;
  expect(order('00000001')).toEqual(['0badc0de', '00000001']);
  expect(order('0badc0de', { ...remembered, configurations: ['0badc0de', '00000001'] })).toEqual([
    '0badc0de',
    '00000001',
  ]);
  // Of an older version
  expect(order('00000001', { ...remembered, configurations: [] })).toEqual(['00000001']);
});
