import { describe, expect, test } from 'bun:test';
import { initProducerIdV3, initProducerIdV4, metadataV9, metadataV12 } from '@platformatic/kafka';
import { SinkError } from '../../../../src/errors.ts';
import { ApiVersions, chooseVersion } from '../../../../src/kafka/client/api-versions.ts';

const [PRODUCE, METADATA, INIT_PRODUCER_ID] = [0, 3, 22];
const offered = (minVersion: number, maxVersion: number) => [
  { apiKey: METADATA, minVersion: 0, maxVersion: 13 },
  { apiKey: INIT_PRODUCER_ID, minVersion: 0, maxVersion: 6 },
  { apiKey: PRODUCE, minVersion, maxVersion },
];

describe('chooseVersion', () => {
  test.each([
    ['a broker that is newer', offered(3, 13), 11],
    ['a broker of the same version', offered(0, 11), 11],
    ['a broker that is older', offered(0, 8), 8],
    ['a broker that dropped old versions', offered(10, 10), 10],
  ])('picks the newest that both know: %s', (_, apis, version) => {
    expect(chooseVersion('Produce', apis)).toBe(version);
  });

  test.each([
    [
      'too old',
      offered(0, 7),
      'Cannot use the broker: it offers Produce 0 to 7, and this service knows Produce 8 to 11',
    ],
    [
      'too new',
      offered(12, 15),
      'Cannot use the broker: it offers Produce 12 to 15, and this service knows Produce 8 to 11',
    ],
    [
      'without Produce',
      [],
      'Cannot use the broker: it offers no Produce request, and this service knows Produce 8 to 11',
    ],
  ])('refuses a broker that is %s, and names request and versions', (_, apis, message) => {
    expect(() => chooseVersion('Produce', apis)).toThrow(SinkError);
    expect(() => chooseVersion('Produce', apis)).toThrow(
      expect.objectContaining({ code: 'api_version_unsupported', message, retriable: false }),
    );
  });
});

describe('ApiVersions', () => {
  test('holds what every broker seen so far understands', () => {
    const versions = new ApiVersions();
    const seen = [offered(0, 11), offered(0, 9), offered(0, 10)].map((apis) => {
      versions.note(apis);
      return versions.produce;
    });
    expect(seen).toEqual([11, 9, 9]);
  });

  test('has the requests of the versions', () => {
    const versions = new ApiVersions();
    expect([versions.metadata, versions.initProducerId]).toEqual([metadataV12.api, initProducerIdV4.api]);
    versions.note([
      { apiKey: METADATA, minVersion: 0, maxVersion: 9 },
      { apiKey: INIT_PRODUCER_ID, minVersion: 0, maxVersion: 3 },
      { apiKey: PRODUCE, minVersion: 0, maxVersion: 8 },
    ]);
    expect<unknown[]>([versions.metadata, versions.initProducerId]).toEqual([metadataV9.api, initProducerIdV3.api]);
  });
});
