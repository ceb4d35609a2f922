import { describe, expect, test } from 'bun:test';
import { judgeMissingPublication, planStreaming } from '../../src/delivery/streaming-plan.ts';

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

  test('takes a marked publication in by its probe when a transaction that was open at its creation lies behind the marker', () => {
    const publications = [{ name: 'b', createdAtLsn: 15n }];
    expect(planStreaming(publications, 20n, new Map([['b', 25n]])).boundaries).toEqual([
      { kind: 'lsn', publication: 'b', lsn: 25n },
    ]);
  });
});

describe('judgeMissingPublication', () => {
  test.each([
    ['never worked before', { createdAtLsn: undefined, changeLsn: 5n, firstLoadedLsn: undefined }, 'not-yet-created'],
    ['never worked, marker ahead', { createdAtLsn: 9n, changeLsn: 5n, firstLoadedLsn: undefined }, 'not-yet-created'],
    ['worked, made by a person', { createdAtLsn: undefined, changeLsn: 9n, firstLoadedLsn: 5n }, 'dropped'],
    ['worked, missing behind its creation', { createdAtLsn: 3n, changeLsn: 9n, firstLoadedLsn: 5n }, 'dropped'],
    ['an older one of the name worked', { createdAtLsn: 12n, changeLsn: 9n, firstLoadedLsn: 5n }, 'dropped'],
    [
      'change of a transaction open at its creation',
      { createdAtLsn: 4n, changeLsn: 3n, firstLoadedLsn: 5n },
      'not-yet-created',
    ],
    ['worked, place of the change unknown', { createdAtLsn: 4n, changeLsn: undefined, firstLoadedLsn: 5n }, 'dropped'],
  ] as const)('%s', (_, missing, verdict) => {
    expect(judgeMissingPublication(missing)).toBe(verdict);
  });
});
