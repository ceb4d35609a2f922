import { describe, expect, test } from 'bun:test';
import { MalformedError } from '../../../../src/errors.ts';
import {
  encodeLedger,
  ledgerGrantSql,
  ledgerName,
  parseLedger,
  type SlotLedger,
} from '../../../../src/postgres/continuity/ledger.ts';

const ledger: SlotLedger = {
  systemIdentifier: '7710967555485513451',
  timeline: 3,
  instance: '8f14e45f-ceea-467f-9575-6a1b3f1a2c3d',
  revision: 12,
  fromLsn: 0x40n,
  confirmedLsn: 0x16_b374_d848n,
  deliveredLsn: 0x16_b374_d800n,
  closed: true,
  publicationOids: new Map([
    ['invoice', 16_412],
    // Names that a careless JSON parser loses.
    ['__proto__', 16_413],
    ['constructor', 4_294_967_295],
    [`O'Brien "the" \\ 1`, 16_414],
    ['1', 16_415],
  ]),
  entryOids: new Map(),
  left: new Map([
    ['orders', { oid: 16_500, lsn: 0x16_b300_0000n }],
    ['__proto__', { oid: 16_501, lsn: 0x40n }],
  ]),
  clusterIds: new Map(),
  configurations: ['0badc0de', '00000001'],
  acceptedLsn: 0x16_b374_0000n,
};

test('a ledger keeps where its publications were last watched', () => {
  const watched = { ...ledger, watchedLsn: 0x40n };
  expect(parseLedger(encodeLedger(watched))).toEqual(watched);
});

describe('a ledger', () => {
  test('is one readable line of JSON', () => {
    const left = new Map([...ledger.left].slice(0, 1));
    expect(encodeLedger({ ...ledger, publicationOids: new Map([['invoice', 16_412]]), left })).toBe(
      '{"system":"7710967555485513451","timeline":3,"instance":"8f14e45f-ceea-467f-9575-6a1b3f1a2c3d","revision":12,' +
        '"from":"0/40","confirmed":"16/B374D848","delivered":"16/B374D800","closed":true,"publications":{"invoice":16412},' +
        '"left":{"orders":{"oid":16500,"lsn":"16/B3000000"}},"configurations":["0badc0de","00000001"],"accepted":"16/B3740000"}',
    );
  });

  test('of an older version is read, and may have delivered all that it confirmed', () => {
    const text =
      '{"system":"7710967555485513451","timeline":3,"instance":"8f14e45f-ceea-467f-9575-6a1b3f1a2c3d","revision":12,' +
      '"from":"0/40","confirmed":"16/B374D848","closed":true,"publications":{"invoice":16412}}';
    expect(parseLedger(text)).toEqual({
      ...ledger,
      deliveredLsn: ledger.confirmedLsn,
      publicationOids: new Map([['invoice', 16_412]]),
      entryOids: new Map(),
      left: new Map(),
      clusterIds: new Map(),
      configurations: [],
      acceptedLsn: undefined,
    });
  });

  test('comes back as it was written', () => {
    const read = parseLedger(encodeLedger(ledger));
    expect(read).toEqual(ledger);
    expect(new Map([...read.publicationOids].sort())).toEqual(new Map([...ledger.publicationOids].sort()));
    expect(read.publicationOids.get('__proto__')).toBe(16_413);
    expect(read.left.get('__proto__')).toEqual({ oid: 16_501, lsn: 0x40n });
    expect(parseLedger(encodeLedger({ ...ledger, acceptedLsn: undefined })).acceptedLsn).toBeUndefined();
  });

  test('may have keys that this version does not know', () => {
    const text = encodeLedger(ledger).replace('{"system"', '{"later":[1],"system"');
    expect(parseLedger(text)).toEqual(ledger);
  });

  test('raises MalformedError for every cut of its text', () => {
    const text = encodeLedger(ledger);
    for (let end = 0; end < text.length; end++) {
      expect(() => parseLedger(text.slice(0, end))).toThrow(MalformedError);
    }
  });

  test.each(['null', '[]', '{}', '"text"', 'cdc-notifier: created at 0/40 of system 1', ...tamperedTexts()])(
    'raises MalformedError for %s',
    (text) => {
      expect(() => parseLedger(text)).toThrow(MalformedError);
    },
  );
});

/** Each key with values that it cannot have. */
function tamperedTexts(): string[] {
  const fields = JSON.parse(encodeLedger(ledger)) as Record<string, unknown>;
  return Object.keys(fields).flatMap((key) =>
    [
      undefined,
      null,
      -1,
      1.5,
      {},
      [],
      ['0/1'],
      { a: 'b' },
      { a: -1 },
      { a: { oid: 1 } },
      { a: { oid: 'x', lsn: '0/1' } },
      { a: { oid: 1, lsn: 'x' } },
      'x',
    ]
      .filter((value) => !(['system', 'instance'].includes(key) && value === 'x'))
      .filter((value) => !(['publications', 'left'].includes(key) && JSON.stringify(value) === '{}'))
      .filter((value) => !(key === 'configurations' && JSON.stringify(value) === '[]'))
      .filter((value) => !(['delivered', 'left', 'configurations', 'accepted'].includes(key) && value === undefined))
      .map((value) => JSON.stringify({ ...fields, [key]: value })),
  );
}

describe('names and statements', () => {
  test('ledgerName carries the name of the slot, cut and made unique where it is too long', () => {
    expect(ledgerName('cdc_slot')).toBe('cdc-notifier:cdc_slot');
    expect(ledgerName('s'.repeat(50))).toBe(`cdc-notifier:${'s'.repeat(50)}`);
    const long = `${'s'.repeat(50)}a`;
    expect(ledgerName(long)).toMatch(/^cdc-notifier:s{41}~[0-9a-f]{8}$/);
    expect(Buffer.byteLength(ledgerName(long))).toBe(63);
    expect(ledgerName(long)).not.toBe(ledgerName(`${'s'.repeat(50)}b`));
  });

  test('statements for an operator quote the names', () => {
    expect(ledgerGrantSql('cdc_slot', 'odd "role"')).toBe(
      `CREATE PUBLICATION "cdc-notifier:cdc_slot" WITH (publish = ''); ALTER PUBLICATION "cdc-notifier:cdc_slot" OWNER TO "odd ""role""";`,
    );
  });
});
