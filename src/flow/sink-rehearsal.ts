import type { Logger } from 'pino';
import type { KafkaClientConfig, NamespaceConfig } from '../config/config.ts';
import { Cluster } from '../kafka/client/cluster.ts';
import { topicsByClient } from './sinks.ts';

/** Options of SinkRehearsal. */
export interface SinkRehearsalOptions {
  readonly namespaces: ReadonlyMap<string, NamespaceConfig>;
  readonly kafkaClients: ReadonlyMap<string, KafkaClientConfig>;
  readonly log: Logger;
}

/**
 * Tries everything that `Sinks.open` does, and sends no record: a standby learns whether it could deliver. Its connections
 * stay open from check to check; after a failure the next check opens new ones, with the secrets as they are then.
 */
export class SinkRehearsal implements Disposable {
  readonly #options: SinkRehearsalOptions;
  readonly #clusters = new Map<string, Cluster>();
  #isClosed = false;

  /** Opens no connection yet. */
  constructor(options: SinkRehearsalOptions) {
    this.#options = options;
  }

  /**
   * Asks every cluster for the topics, the right to write to them, and a producer id.
   * @throws SinkError, SecretError
   */
  async check(): Promise<void> {
    const { namespaces, kafkaClients, log } = this.#options;
    for (const [name, topics] of topicsByClient(namespaces.values())) {
      if (this.#isClosed) return;
      const cluster = this.#clusters.get(name) ?? new Cluster(kafkaClients.get(name)!, log);
      this.#clusters.set(name, cluster);
      try {
        await cluster.refreshMetadata(topics);
        await cluster.initProducerId();
      } catch (error) {
        cluster.close();
        this.#clusters.delete(name);
        throw error;
      }
    }
  }

  /** Drops every connection. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const cluster of this.#clusters.values()) cluster.close();
  }
}
