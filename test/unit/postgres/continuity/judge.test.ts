/** What was known against what exists: every way in which a stream can stop being the same stream. */
import { describe, expect, test } from 'bun:test';
import type { SlotFacts } from '../../../../src/postgres/catalog/slots.ts';
import { type ContinuityFacts, effectiveLedger, judgeContinuity } from '../../../../src/postgres/continuity/judge.ts';
import type { SlotLedger } from '../../../../src/postgres/continuity/ledger.ts';
import { SLOT } from '../../../support/postgres/catalog-facts.ts';

const US = 'this process';
const PEER = 'another process';

/** The last session of this process confirmed up to 100. */
const NO_ENTRIES = { entryOids: [], otherEntryOids: [], formerOids: [] };

const remembered: SlotLedger = {
  systemIdentifier: '1',
  timeline: 1,
  instance: US,
  revision: 5,
  fromLsn: 10n,
  confirmedLsn: 100n,
  deliveredLsn: 100n,
  closed: false,
  publicationOids: new Map([
    ['a', 1],
    ['b', 2],
  ]),
  entryOids: new Map(),
  left: new Map(),
  clusterIds: new Map(),
  configurations: [],
  acceptedLsn: undefined,
};

const slot: SlotFacts = { ...SLOT, confirmedFlushLsn: 100n, retainedWalBytes: 0, serverLsn: 1000n };

const server = { systemIdentifier: '1', timeline: 1, currentLsn: 1000n, history: [] };

/** Everything as this process left it. */
const facts: ContinuityFacts = {
  remembered,
  stored: remembered,
  isLedgerRefused: false,
  server,
  slot,
  namespaces: ['a', 'b', 'new'],
  publications: new Map([
    ['a', { oid: 1, createdAtLsn: 5n, entries: NO_ENTRIES, omissions: [] }],
    ['b', { oid: 2, createdAtLsn: undefined, entries: NO_ENTRIES, omissions: [] }],
  ]),
};

const at = (confirmedFlushLsn: bigint): SlotFacts => ({ ...slot, confirmedFlushLsn });
const lost: SlotFacts = { ...slot, walStatus: 'lost', invalidationReason: 'wal_removed' };
const CONTINUES = {
  verdict: 'continues',
  confirmedLsn: 100n,
  timelineChanged: undefined,
  movedFromLsn: undefined,
} as const;

/** A process that has just started: all it can know is what the ledger says. */
const fresh = (stored: Partial<SlotLedger> | undefined, change: Partial<ContinuityFacts> = {}): ContinuityFacts => ({
  ...facts,
  ...change,
  remembered: undefined,
  stored: stored === undefined ? undefined : { ...remembered, instance: PEER, ...stored },
});
const peer = (change: Partial<SlotLedger>): SlotLedger => ({ ...remembered, instance: PEER, revision: 6, ...change });

/** `goes-on`, or the range of the loss and its details. */
function verdictOf(change: ContinuityFacts): unknown {
  const continuity = judgeContinuity(change);
  if (continuity.verdict !== 'loss') return continuity.verdict;
  const { fromLsn, toLsn, details } = continuity.loss;
  return [fromLsn, toLsn, details.join('; ')];
}

describe('judgeContinuity when nothing is known', () => {
  test.each<[string, Partial<ContinuityFacts>]>([
    ['no slot', { slot: undefined }],
    ['a slot', {}],
  ])('begins with %s', (_, change) => {
    expect(judgeContinuity(fresh(undefined, change))).toEqual({ verdict: 'first' });
  });

  test('an invalidated slot is a loss all the same', () => {
    expect(verdictOf(fresh(undefined, { slot: lost }))).toEqual([
      100n,
      1000n,
      expect.stringContaining('(wal_removed)'),
    ]);
    expect(verdictOf(fresh(undefined, { slot: { ...slot, confirmedFlushLsn: undefined } }))).toEqual([
      0n,
      1000n,
      expect.stringContaining('invalidated'),
    ]);
  });
});

describe('judgeContinuity within a process', () => {
  test('continues where it stopped, and where the server fell back to the position it had saved', () => {
    expect(judgeContinuity(facts)).toEqual(CONTINUES);
    expect(judgeContinuity({ ...facts, slot: at(60n) })).toEqual(CONTINUES);
    expect(judgeContinuity({ ...facts, stored: undefined })).toEqual(CONTINUES);
  });

  test.each<[string, Partial<ContinuityFacts>, unknown]>([
    ['another system', { server: { ...server, systemIdentifier: '2' } }, [100n, undefined, 'system identifier 2']],
    [
      'another system, independent of other changes',
      { server: { ...server, systemIdentifier: '2', timeline: 9 }, slot: lost, publications: new Map() },
      [100n, undefined, 'system identifier 2'],
    ],
    [
      'a server that was set back',
      { server: { ...server, currentLsn: 99n }, slot: at(60n) },
      [100n, 100n, 'restored to an earlier state: its WAL ends at 0/63'],
    ],
    ['no slot', { slot: undefined }, [100n, 1000n, 'does not exist any more']],
    ['an invalidated slot', { slot: lost }, [100n, 1000n, 'invalidated']],
    [
      'an invalidated slot that fell back before',
      { slot: { ...lost, confirmedFlushLsn: 60n } },
      [100n, 1000n, 'invalidated'],
    ],
    [
      'a slot moved with our own ledger stored, however old',
      { slot: at(200n), stored: { ...remembered, confirmedLsn: 40n } },
      [100n, 200n, 'the slot is at 0/C8'],
    ],
    [
      'a slot moved without a stored ledger',
      { slot: at(200n), stored: undefined },
      [100n, 200n, 'the slot is at 0/C8'],
    ],
    [
      'a slot moved when a peer had written before we prepared, and not since',
      { slot: at(200n), stored: peer({ revision: 4 }) },
      [100n, 200n, 'the slot is at 0/C8'],
    ],
    [
      'a slot moved and a peer that stopped before that',
      { slot: at(200n), stored: peer({ closed: true, confirmedLsn: 150n }) },
      [150n, 200n, 'the slot is at 0/C8'],
    ],
    [
      'a slot moved and a peer that started after our position',
      { slot: at(200n), stored: peer({ fromLsn: 101n, confirmedLsn: 200n }) },
      [100n, 200n, 'the slot is at 0/C8'],
    ],
    [
      'a slot moved and a peer on another system',
      { slot: at(200n), stored: peer({ systemIdentifier: '2' }) },
      [100n, 200n, 'the slot is at 0/C8'],
    ],
    [
      'a slot moved by a peer that streams without one of our namespaces',
      { slot: at(200n), stored: peer({ publicationOids: new Map([['a', 1]]) }) },
      [100n, 200n, 'without namespace "b"'],
    ],
    ['a slot moved and then invalidated', { slot: { ...lost, confirmedFlushLsn: 200n } }, [100n, 1000n, 'invalidated']],
  ])('stops at %s', (_, change, expected) => {
    const [fromLsn, toLsn, detail] = expected as [bigint, bigint | undefined, string];
    expect(verdictOf({ ...facts, ...change })).toEqual([fromLsn, toLsn, expect.stringContaining(detail)]);
  });

  test.each<[string, SlotLedger]>([
    ['streams still, or crashed', peer({})],
    ['came back several times', peer({ revision: 9 })],
    ['took the slot when we were about to', peer({ revision: 5 })],
    ['took over after others, from before us on', peer({ fromLsn: 0n, confirmedLsn: 180n })],
    ['stopped there', peer({ closed: true, confirmedLsn: 200n })],
    ['stopped after it, and the server fell back', peer({ closed: true, confirmedLsn: 300n })],
  ])('the position of the slot is explained by a peer that %s', (_, stored) => {
    const { confirmedLsn } = stored;
    expect(judgeContinuity({ ...facts, slot: at(200n), stored })).toEqual({ ...CONTINUES, confirmedLsn });
  });

  test('without the right to a ledger nothing shows which process moved the slot', () => {
    const moved = { ...facts, slot: at(200n), isLedgerRefused: true };
    expect(judgeContinuity({ ...moved, stored: undefined })).toEqual({ ...CONTINUES, movedFromLsn: 100n });
    expect(judgeContinuity({ ...moved, stored: peer({ revision: 4 }) })).toEqual({ ...CONTINUES, movedFromLsn: 100n });
    expect(judgeContinuity({ ...facts, isLedgerRefused: true, stored: undefined })).toEqual(CONTINUES);
    expect(verdictOf({ ...moved, slot: undefined, stored: undefined })).toEqual([100n, 1000n, expect.any(String)]);
  });
});

describe('judgeContinuity within a new process', () => {
  test.each<[string, ContinuityFacts]>([
    ['the ledger was closed and the slot has not moved', fresh({ closed: true })],
    ['the ledger was closed and the server fell back', fresh({ closed: true, confirmedLsn: 100n }, { slot: at(60n) })],
    ['a crash left the ledger open', fresh({ confirmedLsn: 20n })],
  ])('continues when %s', (_, change) => {
    const { confirmedLsn } = change.stored!;
    expect(judgeContinuity(change)).toEqual({ ...CONTINUES, confirmedLsn });
  });

  test.each<[string, ContinuityFacts, unknown]>([
    ['the ledger was closed before', fresh({ closed: true, confirmedLsn: 80n }), [80n, 100n, 'the slot is at']],
    ['the slot is gone', fresh({ confirmedLsn: 80n }, { slot: undefined }), [80n, 1000n, 'does not exist']],
    ['the slot was invalidated', fresh({ confirmedLsn: 80n }, { slot: lost }), [100n, 1000n, 'invalidated']],
    [
      'the dump of another server was restored',
      fresh({ systemIdentifier: '2' }),
      [100n, undefined, 'system identifier'],
    ],
  ])('stops when %s', (_, change, expected) => {
    const [fromLsn, toLsn, detail] = expected as [bigint, bigint | undefined, string];
    expect(verdictOf(change)).toEqual([fromLsn, toLsn, expect.stringContaining(detail)]);
  });
});

describe('judgeContinuity of a slot past the end of the WAL', () => {
  const setBack = { server: { ...server, currentLsn: 50n } };
  const expected = [50n, 100n, expect.stringContaining("past the end of the server's WAL (0/32)")];

  test('stops every process, and names where the WAL ends', () => {
    expect(verdictOf(fresh(undefined, setBack))).toEqual(expected);
    // The ledger that came with the server was confirmed before the server was set back, wherever that was.
    expect(verdictOf(fresh({ confirmedLsn: 40n }, setBack))).toEqual([40n, ...expected.slice(1)]);
    expect(verdictOf({ ...facts, ...setBack })).toEqual(expected);
    expect(verdictOf(fresh(undefined, { server: { ...server, currentLsn: 100n } }))).toBe('first');
  });

  test('still names that LSN when the WAL has grown, and has passed the slot', () => {
    const claimed = { ...remembered, revision: 6, confirmedLsn: 50n, closed: true };
    for (const currentLsn of [60n, 1000n]) {
      const grown = { server: { ...server, currentLsn }, stored: claimed };
      for (const change of [
        { ...facts, ...grown },
        { ...facts, ...grown, remembered: undefined },
      ]) {
        expect(verdictOf(change)).toEqual([50n, 100n, expect.any(String)]);
      }
    }
  });

  test('wants a new slot, as one that was invalidated, and no other', () => {
    const needsNewSlot = (change: Partial<ContinuityFacts>) => {
      const continuity = judgeContinuity({ ...facts, ...change });
      return continuity.verdict === 'loss' && continuity.loss.needsNewSlot;
    };
    expect(needsNewSlot(setBack)).toBe(true);
    expect(needsNewSlot({ slot: lost })).toBe(true);
    expect(needsNewSlot({ slot: lost, server: { ...server, systemIdentifier: '2' } })).toBe(true);
    expect(needsNewSlot({ slot: at(200n) })).toBe(false);
    expect(needsNewSlot({ slot: undefined })).toBe(false);
    expect(needsNewSlot({ server: { ...server, systemIdentifier: '2' } })).toBe(false);
  });
});

describe('judgeContinuity on another timeline', () => {
  const promoted = (endLsn: bigint, timeline = 2) => ({
    ...facts,
    server: { ...server, timeline, history: [{ timeline: 1, endLsn }] },
  });

  test('continues when the new primary has all that was confirmed', () => {
    const changed = { ...CONTINUES, timelineChanged: { from: 1, to: 2 } };
    expect(judgeContinuity(promoted(100n))).toEqual(changed);
    expect(judgeContinuity({ ...promoted(100n), slot: at(60n) })).toEqual(changed);
    expect(judgeContinuity({ ...promoted(100n), remembered: undefined })).toEqual(changed);
  });

  test('names what Kafka holds and the new primary lacks', () => {
    expect(verdictOf(promoted(90n))).toEqual([90n, 100n, expect.stringContaining('left timeline 1 at 0/5A')]);
  });

  test('a slot that the new primary lacks is lost from where it branched off', () => {
    const [fromLsn, toLsn, detail] = verdictOf({ ...promoted(90n), slot: undefined }) as [bigint, bigint, string];
    expect([fromLsn, toLsn]).toEqual([90n, 1000n]);
    expect(detail).toContain('left timeline 1');
    expect(detail).toContain('does not exist any more');
    expect(verdictOf({ ...promoted(100n), slot: undefined })).toEqual([
      100n,
      1000n,
      expect.stringContaining('not exist'),
    ]);
  });

  test('a timeline that was never followed by this one is a loss', () => {
    const server3 = { ...server, timeline: 4, history: [{ timeline: 1, endLsn: 90n }] };
    const onThree = { ...remembered, timeline: 3 };
    expect(verdictOf({ ...facts, remembered: onThree, stored: onThree, server: server3 })).toEqual([
      90n,
      100n,
      expect.stringContaining('does not descend from'),
    ]);
    // Where that one began is not known: also what lies before may be missing.
    const later = { ...server3, history: [{ timeline: 1, endLsn: 200n }] };
    expect(verdictOf({ ...facts, remembered: onThree, stored: onThree, server: later })).toEqual([
      100n,
      100n,
      expect.stringContaining('does not descend from'),
    ]);
  });

  test('what this process delivered counts also when a peer has gone on from the new primary', () => {
    const stored = peer({ timeline: 2, fromLsn: 10n, confirmedLsn: 200n });
    expect(verdictOf({ ...promoted(90n), stored, slot: at(200n) })).toEqual([90n, 100n, expect.any(String)]);
    expect(judgeContinuity({ ...promoted(100n), stored, slot: at(200n) })).toEqual({
      ...CONTINUES,
      confirmedLsn: 200n,
      timelineChanged: { from: 1, to: 2 },
    });
  });

  test('a server on an older timeline is a former primary, independent of what it lacks', () => {
    const onTwo = { ...remembered, timeline: 2 };
    const old = { ...facts, remembered: onTwo, slot: undefined, publications: new Map() };
    expect(judgeContinuity(old)).toEqual({ verdict: 'wrong-server', knownTimeline: 2 });
    expect(judgeContinuity({ ...old, remembered: undefined, stored: onTwo })).toEqual({
      verdict: 'wrong-server',
      knownTimeline: 2,
    });
  });
});

describe('judgeContinuity of publications', () => {
  const renewed = (b: { oid: number; createdAtLsn: bigint | undefined } | undefined, change = {}): ContinuityFacts => ({
    ...facts,
    publications: new Map([
      ['a', { oid: 1, createdAtLsn: 5n, entries: NO_ENTRIES, omissions: [] }],
      ...(b === undefined ? [] : [['b', { ...b, entries: NO_ENTRIES, omissions: [] }] as const]),
    ]),
    ...change,
  });

  test.each<[string, ContinuityFacts, unknown]>([
    ['was dropped', renewed(undefined), [100n, 1000n, 'publication "b" was dropped']],
    ['was recreated', renewed({ oid: 3, createdAtLsn: 400n }), [100n, 400n, 'and recreated']],
    ['was recreated by an operator', renewed({ oid: 3, createdAtLsn: undefined }), [100n, 1000n, 'and recreated']],
    [
      'was recreated while the slot was before its start',
      renewed({ oid: 3, createdAtLsn: 101n }, { slot: at(60n) }),
      [100n, 101n, ''],
    ],
    [
      'was dropped, with the slot',
      renewed(undefined, { slot: undefined }),
      [100n, 1000n, 'does not exist any more; publication'],
    ],
  ])('stops when one %s', (_, change, expected) => {
    const [fromLsn, toLsn, detail] = expected as [bigint, bigint, string];
    expect(verdictOf(change)).toEqual([fromLsn, toLsn, expect.stringContaining(detail)]);
  });

  test('continues when the slot was streamed past the LSN where one was recreated', () => {
    expect(judgeContinuity(renewed({ oid: 3, createdAtLsn: 100n }))).toEqual(CONTINUES);
  });

  test('follows the ledger of a peer that has streamed since', () => {
    const stored = peer({ publicationOids: new Map([...remembered.publicationOids, ['b', 3]]) });
    expect(judgeContinuity(renewed({ oid: 3, createdAtLsn: 400n }, { stored }))).toEqual(CONTINUES);
  });

  test('one that is not configured any more, or was never streamed, is no loss', () => {
    expect(judgeContinuity(renewed(undefined, { namespaces: ['a', 'new'] }))).toEqual(CONTINUES);
    expect(
      judgeContinuity({
        ...facts,
        publications: new Map([
          ...facts.publications,
          ['new', { oid: 9, createdAtLsn: 1n, entries: NO_ENTRIES, omissions: [] }],
        ]),
      }),
    ).toEqual(CONTINUES);
  });
});

describe('judgeContinuity of a publication that was altered', () => {
  const omissions = ['it does not publish delete', 'it does not hold public.b_events'];
  const b = { oid: 2, createdAtLsn: undefined, entries: NO_ENTRIES, omissions };
  const altered = { ...facts, publications: new Map([...facts.publications, ['b', b]]) };

  test('names the position of the slot, and what is left out', () => {
    const detail =
      'publication "b" was altered while it was in use (it does not publish delete; it does not hold public.b_events), ' +
      'and some of what it left out may lie before';
    expect(verdictOf(altered)).toEqual([100n, 1000n, detail]);
    expect(verdictOf({ ...altered, slot: at(60n) })).toEqual([100n, 1000n, detail]);
    expect(judgeContinuity(altered)).toMatchObject({ loss: { altered: ['b'], needsNewSlot: false } });
  });

  test('begins where the publications were last seen as they must be, whatever was confirmed since', () => {
    const watched = { ...remembered, watchedLsn: 70n };
    expect(verdictOf({ ...altered, remembered: watched })).toEqual([70n, 1000n, expect.any(String)]);
    const stored = { ...watched, confirmedLsn: 80n, closed: false };
    expect(verdictOf({ ...altered, remembered: undefined, stored })).toEqual([70n, 1000n, expect.any(String)]);
    const shown = { ...stored, confirmedLsn: 70n, closed: true };
    const detail = expect.not.stringContaining('advanced');
    expect(verdictOf({ ...altered, remembered: undefined, stored: shown })).toEqual([70n, 1000n, detail]);
  });

  test('does not concern a slot that was not streamed with it', () => {
    expect(verdictOf({ ...altered, namespaces: ['a'] })).toBe('continues');
    expect(verdictOf({ ...altered, remembered: undefined, stored: undefined })).toBe('first');
    const alone = { ...remembered, publicationOids: new Map([['a', 1]]) };
    expect(verdictOf({ ...altered, remembered: alone, stored: alone })).toBe('continues');
  });

  test('stays a loss when it was corrected, recreated or dropped, until that is accepted', () => {
    const stored = {
      ...remembered,
      revision: 6,
      closed: true,
      publicationOids: new Map([...remembered.publicationOids, ['b', 0]]),
    };
    for (const present of [
      undefined,
      { ...b, entries: NO_ENTRIES, omissions: [] },
      { oid: 3, createdAtLsn: 1n, entries: NO_ENTRIES, omissions: [] },
    ]) {
      const publications = new Map([
        ...facts.publications,
        ...(present === undefined ? [] : [['b', present] as const]),
      ]);
      const expected = [100n, 1000n, expect.stringContaining('publication "b" was altered while it was in use, and')];
      expect(verdictOf({ ...facts, stored, publications })).toEqual(expected);
      expect(verdictOf({ ...facts, remembered: undefined, stored, publications })).toEqual(expected);
    }
  });
});

describe('judgeContinuity of a namespace that was left', () => {
  const left = (oid: number, lsn: bigint): ContinuityFacts =>
    fresh({ publicationOids: new Map([['a', 1]]), left: new Map([['b', { oid, lsn }]]) });

  test('names what was streamed without it', () => {
    expect(verdictOf(left(2, 70n))).toEqual([70n, 100n, expect.stringContaining('without namespace "b"')]);
    expect(verdictOf({ ...left(2, 70n), remembered })).toEqual([70n, 100n, expect.any(String)]);
    expect(verdictOf({ ...left(2, 70n), slot: at(200n) })).toEqual([70n, 200n, expect.any(String)]);
  });

  test.each<[string, ContinuityFacts]>([
    ['nothing was streamed since', left(2, 100n)],
    ['its publication is another one, and so a new beginning', left(7, 70n)],
    ['its publication was dropped', { ...left(2, 70n), publications: new Map([...facts.publications].slice(0, 1)) }],
    ['it is not configured', { ...left(2, 70n), namespaces: ['a'] }],
  ])('continues when %s', (_, change) => {
    expect(verdictOf(change)).toBe('continues');
  });

  test('one that was altered before it was left is a loss wherever it was left', () => {
    expect(verdictOf(left(0, 100n))).toEqual([100n, 100n, expect.any(String)]);
  });
});

describe('judgeContinuity of a loss at a place that was accepted before', () => {
  const accepted = { ...remembered, acceptedLsn: 100n };
  const gone = { ...facts, slot: undefined };

  test('is named by the next byte, by every process, and then by the place again', () => {
    expect(verdictOf({ ...gone, remembered: accepted, stored: accepted })).toEqual([101n, 1000n, expect.any(String)]);
    expect(verdictOf(fresh({ acceptedLsn: 100n }, gone))).toEqual([101n, 1000n, expect.any(String)]);
    expect(verdictOf(fresh({ acceptedLsn: 101n }, gone))).toEqual([100n, 1000n, expect.any(String)]);
    expect(verdictOf(fresh({ acceptedLsn: 100n }, { server: { ...server, systemIdentifier: '2' } }))).toEqual([
      101n,
      undefined,
      expect.any(String),
    ]);
    expect(verdictOf(fresh({ acceptedLsn: 100n }))).toBe('continues');
  });

  test('is the same loss to a process that has not met it yet', () => {
    const stored = peer({ timeline: 2, confirmedLsn: 90n, deliveredLsn: 90n, acceptedLsn: 90n });
    const promoted = { ...server, timeline: 2, history: [{ timeline: 1, endLsn: 90n }] };
    expect(verdictOf({ ...facts, stored, slot: at(90n), server: promoted })).toEqual([90n, 100n, expect.any(String)]);
  });
});

describe('judgeContinuity of positions that were confirmed without a record', () => {
  const quiet = { ...remembered, deliveredLsn: 90n };
  const change = { remembered: quiet, stored: quiet };
  const promoted = { ...server, timeline: 2, history: [{ timeline: 1, endLsn: 90n }] };

  test('continues with a new primary, or an older copy, that has all that was delivered', () => {
    expect(judgeContinuity({ ...facts, ...change, server: promoted, slot: at(80n) })).toEqual({
      ...CONTINUES,
      confirmedLsn: 90n,
      timelineChanged: { from: 1, to: 2 },
    });
    const setBack = { ...server, currentLsn: 95n };
    expect(judgeContinuity({ ...facts, ...change, server: setBack, slot: at(80n) })).toEqual({
      ...CONTINUES,
      confirmedLsn: 95n,
    });
  });

  test('is a loss from what was delivered on', () => {
    const further = { ...quiet, deliveredLsn: 91n };
    expect(verdictOf({ ...facts, remembered: further, stored: further, server: promoted, slot: at(80n) })).toEqual([
      90n,
      91n,
      expect.stringContaining('before 0/5B, up to which changes were delivered'),
    ]);
    const setBack = { ...server, currentLsn: 80n };
    expect(verdictOf({ ...facts, ...change, server: setBack, slot: at(60n) })).toEqual([90n, 90n, expect.any(String)]);
  });

  test('what the new primary writes after the fork was not confirmed: its losses start there', () => {
    expect(verdictOf({ ...facts, ...change, server: promoted, slot: undefined })).toEqual([
      90n,
      1000n,
      expect.stringMatching(/^the replication slot does not exist any more$/),
    ]);
    expect(verdictOf({ ...facts, ...change, server: promoted, slot: at(95n) })).toEqual([
      90n,
      95n,
      expect.stringContaining('was advanced'),
    ]);
  });

  test('a slot on WAL of the new timeline was recreated there, whatever an open ledger of an older one says', () => {
    const open = { remembered: undefined, stored: { ...quiet, closed: false } };
    const verdict = (lsn: bigint) => verdictOf({ ...facts, ...open, server: promoted, slot: at(lsn) });
    expect(verdict(91n)).toEqual([90n, 91n, expect.stringContaining('the slot was recreated on the promoted server')]);
    expect(judgeContinuity({ ...facts, ...open, server: promoted, slot: at(90n) })).toMatchObject({
      verdict: 'continues',
      timelineChanged: { from: 1, to: 2 },
    });
    // A process that streams the new timeline leaves a ledger of it first: then an open ledger shows nothing.
    const onTwo = { remembered: undefined, stored: { ...quiet, timeline: 2, closed: false } };
    expect(judgeContinuity({ ...facts, ...onTwo, server: promoted, slot: at(200n) }).verdict).toBe('continues');
  });
});

describe('effectiveLedger', () => {
  test('is what this process knows unless another has gone on from there', () => {
    expect(effectiveLedger({ remembered: undefined, stored: undefined })).toBeUndefined();
    expect(effectiveLedger({ remembered, stored: undefined })).toBe(remembered);
    const stored = peer({});
    expect(effectiveLedger({ remembered: undefined, stored })).toBe(stored);
    expect(effectiveLedger({ remembered, stored })).toBe(stored);
    expect(effectiveLedger({ remembered, stored: { ...stored, revision: 4 } })).toBe(remembered);
    expect(effectiveLedger({ remembered, stored: { ...remembered, revision: 4 } })).toBe(remembered);
  });
});
