import type { Logger } from 'pino';
import type { KafkaClientConfig } from '../../config/config.ts';
import { SinkError } from '../../errors.ts';

/**
 * Knows the Kafka cluster that a slot delivers to: DNS, a load balancer or a restored cluster may put another one at the same
 * addresses, and its acknowledgements would confirm records that consumers of the first one never see. Every connection is
 * checked before a record is sent through it.
 */
export class ClusterIdentity {
  readonly #config: KafkaClientConfig;
  readonly #knownIds: Map<string, string>;
  readonly #log: Logger;

  /** @param knownIds cluster ids by Kafka client; the first cluster that answers is added, and an accepted one replaces it */
  constructor(config: KafkaClientConfig, knownIds: Map<string, string>, log: Logger) {
    this.#config = config;
    this.#knownIds = knownIds;
    this.#log = log;
  }

  /** @param clusterId as the broker of a new connection reports it; null = it does not. @throws SinkError for another cluster */
  check(clusterId: string | null): void {
    const { name, acceptClusterId } = this.#config;
    const known = this.#knownIds.get(name);
    if (clusterId === null || clusterId === known) return;
    if (known !== undefined && clusterId !== acceptClusterId) {
      throw new SinkError(`Cannot use Kafka cluster ${clusterId}: the slot delivers to cluster ${known}`, {
        code: 'another_cluster',
        retriable: false,
        advice:
          `If the addresses lead to the wrong cluster, correct brokers of the Kafka client, DNS or the load balancer. If the cluster was ` +
          `replaced on purpose, set kafka_clients.${name}.accept_cluster_id: ${clusterId} and restart: it has only what is delivered from then on`,
        place: { kafkaClient: name },
      });
    }
    if (known !== undefined) {
      const facts = { event: 'kafka_cluster_accepted', kafkaClient: name, from: known, to: clusterId };
      this.#log.warn(facts, 'the slot delivers to another Kafka cluster from here on, as accept_cluster_id allows');
    }
    this.#knownIds.set(name, clusterId);
  }
}
