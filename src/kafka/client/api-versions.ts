/** Versions of Kafka's requests: what this service can write, and what the brokers understand. */
import { type apiVersionsV3, produceV9, produceV10, produceV11 } from '@platformatic/kafka';
import { SinkError } from '../../errors.ts';

type OfferedVersions = readonly Pick<apiVersionsV3.ApiVersionsResponseApi, 'apiKey' | 'minVersion' | 'maxVersion'>[];

/** Kafka's number of the Produce request. */
export const PRODUCE_API_KEY = 0;

/** Produce versions whose requests and responses look alike: flexible encoding, no topic ids (Kafka 2.4 and newer). */
const PRODUCE_APIS = { 11: produceV11, 10: produceV10, 9: produceV9 } as const;
/** A version of the Produce request that this service can write. */
export type ProduceVersion = keyof typeof PRODUCE_APIS;
/** The answer to a Produce request, with any error codes of its partitions; alike in all these versions. */
export type ProduceResponse = produceV11.ProduceResponse;

/** The newest versions that every broker seen so far understands: brokers may run different releases. */
export class ApiVersions {
  #produce: ProduceVersion = 11;

  get produce(): ProduceVersion {
    return this.#produce;
  }

  /**
   * Takes into account what a broker answered to an ApiVersions request.
   * @throws SinkError when the broker has no version in common with this service
   */
  note(apis: OfferedVersions): void {
    const version = chooseProduceVersion(apis);
    if (version < this.#produce) this.#produce = version;
  }
}

/**
 * Picks the newest Produce version that both sides know.
 * @throws SinkError when there is none
 */
export function chooseProduceVersion(apis: OfferedVersions): ProduceVersion {
  const produce = apis.find((api) => api.apiKey === PRODUCE_API_KEY);
  for (const version of [11, 10, 9] as const) {
    if (produce !== undefined && produce.minVersion <= version && version <= produce.maxVersion) return version;
  }
  throw new SinkError('Cannot produce: the broker offers no Produce version from 9 to 11', {
    code: 'produce_version_unsupported',
    retriable: false,
    advice: 'Use Kafka 3.1 or newer',
  });
}

/** The library's parser of the answer to a Produce request of this version. */
export function produceResponseParser(version: ProduceVersion): typeof produceV11.parseResponse {
  return PRODUCE_APIS[version].parseResponse as typeof produceV11.parseResponse;
}
