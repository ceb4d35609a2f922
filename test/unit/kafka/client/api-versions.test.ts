import { describe, expect, test } from 'bun:test';
import { SinkError } from '../../../../src/errors.ts';
import { ApiVersions, chooseProduceVersion } from '../../../../src/kafka/client/api-versions.ts';

const PRODUCE = 0;
const METADATA = 3;
const offered = (minVersion: number, maxVersion: number) => [
  { apiKey: METADATA, minVersion: 0, maxVersion: 13 },
  { apiKey: PRODUCE, minVersion, maxVersion },
];

describe('chooseProduceVersion', () => {
  test.each([
    ['a broker that is newer', offered(3, 13), 11],
    ['a broker of the same version', offered(0, 11), 11],
    ['a broker that is older', offered(0, 9), 9],
    ['a broker that dropped old versions', offered(10, 10), 10],
  ])('picks the newest that both know: %s', (_, apis, version) => {
    expect(chooseProduceVersion(apis)).toBe(version as 9 | 10 | 11);
  });

  test.each([
    ['too old', offered(0, 8)],
    ['too new', offered(12, 15)],
    ['without Produce', []],
  ])('refuses a broker that is %s, and says which Kafka to use', (_, apis) => {
    expect(() => chooseProduceVersion(apis)).toThrow(SinkError);
    expect(() => chooseProduceVersion(apis)).toThrow(
      expect.objectContaining({ code: 'produce_version_unsupported', advice: 'Use Kafka 3.1 or newer' }),
    );
  });
});

test('ApiVersions holds what every broker seen so far understands', () => {
  const versions = new ApiVersions();
  const seen = [offered(0, 11), offered(0, 9), offered(0, 10)].map((apis) => {
    versions.note(apis);
    return versions.produce;
  });
  expect(seen).toEqual([11, 9, 9]);
});
