/** Versions of Kafka's requests: what this service can write, and what the brokers understand. */
import {
  type apiVersionsV3,
  initProducerIdV3,
  initProducerIdV4,
  metadataV9,
  metadataV10,
  metadataV11,
  metadataV12,
  produceV8,
  produceV9,
  produceV10,
  produceV11,
} from '@platformatic/kafka';
import { SinkError } from '../../errors.ts';

type OfferedVersions = readonly Pick<apiVersionsV3.ApiVersionsResponseApi, 'apiKey' | 'minVersion' | 'maxVersion'>[];

/** A kind of request. */
export type ApiName = 'Produce' | 'Metadata' | 'InitProducerId';

/** Kafka's number of each request, and the versions that this service can write, newest first. */
const APIS: Readonly<Record<ApiName, { readonly key: number; readonly versions: readonly [number, ...number[]] }>> = {
  // Without topic ids, which come with 13; 8 is the last one without flexible encoding.
  Produce: { key: 0, versions: [11, 10, 9, 8] },
  Metadata: { key: 3, versions: [12, 11, 10, 9] },
  InitProducerId: { key: 22, versions: [4, 3] },
};

/** Kafka's number of the Produce request. */
export const PRODUCE_API_KEY = APIS.Produce.key;
/** The first version of the Produce request with flexible encoding: compact lengths and tagged fields. */
const FLEXIBLE_PRODUCE_VERSION = 9;

/** The answer to a Produce request, with any error codes of its partitions; alike in all these versions. */
export type ProduceResponse = produceV11.ProduceResponse;

/** The newest versions that every broker seen so far understands: brokers may run different releases. */
export class ApiVersions {
  readonly #chosen: Record<ApiName, number> = {
    Produce: APIS.Produce.versions[0],
    Metadata: APIS.Metadata.versions[0],
    InitProducerId: APIS.InitProducerId.versions[0],
  };

  get produce(): number {
    return this.#chosen.Produce;
  }

  /** The library's Metadata request of the version. */
  get metadata(): typeof metadataV12.api {
    const apis: Readonly<Record<number, unknown>> = {
      12: metadataV12,
      11: metadataV11,
      10: metadataV10,
      9: metadataV9,
    };
    // The arguments in use, and the parts of the answer that are read, are alike.
    return (apis[this.#chosen.Metadata] as typeof metadataV12).api;
  }

  /** The library's InitProducerId request of the version. */
  get initProducerId(): typeof initProducerIdV4.api {
    return this.#chosen.InitProducerId === 3 ? initProducerIdV3.api : initProducerIdV4.api;
  }

  /**
   * Takes into account what a broker answered to an ApiVersions request.
   * @throws SinkError when the broker has no version in common with this service
   */
  note(offered: OfferedVersions): void {
    for (const name of Object.keys(APIS) as ApiName[]) {
      this.#chosen[name] = Math.min(this.#chosen[name], chooseVersion(name, offered));
    }
  }
}

/**
 * Picks the newest version of a request that both sides know.
 * @throws SinkError when there is none
 */
export function chooseVersion(name: ApiName, offered: OfferedVersions): number {
  const { key, versions } = APIS[name];
  const api = offered.find((one) => one.apiKey === key);
  const version = versions.find((one) => api !== undefined && api.minVersion <= one && one <= api.maxVersion);
  if (version !== undefined) return version;
  const offer = api === undefined ? `no ${name} request` : `${name} ${api.minVersion} to ${api.maxVersion}`;
  throw new SinkError(
    `Cannot use the broker: it offers ${offer}, and this service knows ${name} ${versions.at(-1)} to ${versions[0]}`,
    {
      code: 'api_version_unsupported',
      retriable: false,
      advice:
        api === undefined
          ? 'If this is the port of a KRaft controller, give that of a listener for clients; a proxy in between may also hide requests'
          : 'Use Kafka 3.1 or newer, or a service that offers these versions; a proxy in between may hide them',
    },
  );
}

/** True for the versions of a Produce request with compact lengths and tagged fields. */
export function isFlexibleProduce(version: number): boolean {
  return version >= FLEXIBLE_PRODUCE_VERSION;
}

/** The library's parser of the answer to a Produce request of this version. */
export function produceResponseParser(version: number): typeof produceV11.parseResponse {
  const apis: Readonly<Record<number, unknown>> = { 11: produceV11, 10: produceV10, 9: produceV9, 8: produceV8 };
  return (apis[version] as typeof produceV11).parseResponse;
}
