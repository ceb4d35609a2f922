import { describe, expect, test } from 'bun:test';
import { judgeMissingPublication, planStreaming } from '../../../../src/postgres/setup/streaming-plan.ts';

describe('planStreaming', () => {
  const none = new Map<string, bigint>();

  test('streams everything that is older than the position of the slot', () => {
    const publications = [
      { name: 'a', createdAtLsn: 10n },
      { name: 'b', createdAtLsn: undefined },
    ];
    expect(planStreaming(publications, 20n, none)).toEqual({ streamed: ['a', 'b'], boundaries: [] });
  });

  test('leaves out what our marker shows to be younger, until the marker', () => {
    const publications = [
      { name: 'a', createdAtLsn: 10n },
      { name: 'b', createdAtLsn: 30n },
    ];
    expect(planStreaming(publications, 20n, none)).toEqual({
      streamed: ['a'],
      boundaries: [{ kind: 'marker', publication: 'b', lsn: 30n }],
    });
  });

  test('leaves out what a probe found to be younger, until the LSN it found', () => {
    const publications = [{ name: 'b', createdAtLsn: undefined }];
    expect(planStreaming(publications, 20n, new Map([['b', 25n]]))).toEqual({
      streamed: [],
      boundaries: [{ kind: 'lsn', publication: 'b', lsn: 25n }],
    });
    expect(planStreaming(publications, 25n, new Map([['b', 25n]])).streamed).toEqual(['b']);
  });

  test('gives boundaries in the order of the WAL, not of the configuration', () => {
    const publications = [
      { name: 'late', createdAtLsn: undefined },
      { name: 'middle', createdAtLsn: 40n },
      { name: 'early', createdAtLsn: undefined },
    ];
    const probed = new Map([
      ['late', 50n],
      ['early', 30n],
    ]);
    expect(planStreaming(publications, 20n, probed).boundaries.map(({ lsn }) => lsn)).toEqual([30n, 40n, 50n]);
  });

  test('streams a marked publication from its probed LSN when a transaction that was open at its creation commits after the marker', () => {
    const publications = [{ name: 'b', createdAtLsn: 15n }];
    expect(planStreaming(publications, 20n, new Map([['b', 25n]])).boundaries).toEqual([
      { kind: 'lsn', publication: 'b', lsn: 25n },
    ]);
  });
});

describe('judgeMissingPublication', () => {
  test.each([
    ['nothing is known of it', { changeLsn: 5n, existedAtLsn: undefined }, 'not-yet-created'],
    ['nothing is known at all', { changeLsn: undefined, existedAtLsn: undefined }, 'not-yet-created'],
    ['the change is older than what is known', { changeLsn: 4n, existedAtLsn: 5n }, 'not-yet-created'],
    ['it existed at the place of the change', { changeLsn: 5n, existedAtLsn: 5n }, 'dropped'],
    ['it existed before the change', { changeLsn: 9n, existedAtLsn: 5n }, 'dropped'],
    ['it existed, place of the change unknown', { changeLsn: undefined, existedAtLsn: 5n }, 'dropped'],
  ] as const)('%s', (_, missing, verdict) => {
    expect(judgeMissingPublication(missing)).toBe(verdict);
  });
});
