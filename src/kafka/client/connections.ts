import { apiVersionsV3, Connection, ResponseError } from '@platformatic/kafka';
import type { Logger } from 'pino';
import { formatAddress, isLoopback } from '../../config/address.ts';
import type { KafkaClientConfig, ServerAddress } from '../../config/config.ts';
import { settlesWithin } from '../../deadline.ts';
import { NotifierError, SecretError, SinkError } from '../../errors.ts';
import { connectAdvice, judgeKafkaError } from '../../failure-policy.ts';
import { ApiVersions } from './api-versions.ts';
import type { ClusterIdentity } from './cluster-identity.ts';
import { connectionOptions } from './connection-options.ts';
import { codeOf, identify } from './errors.ts';
import { sendInPieces } from './large-requests.ts';
import { boundReauthentication, destroyOnThrow } from './library-patches.ts';

/** A connection that was silent for so long is proved before it is used: a NAT or firewall in between may have forgotten it */
const PROVED_FOR_MS = 10_000;
/** The broker's answer to the proof is a few bytes; after this time another connection is opened */
const PROOF_TIMEOUT_MS = 1_000;
/** After this time without an answer another broker is asked as well */
const SILENCE_MS = 2_000;
/** Shorter than the idle time after which cloud networks forget a connection (250 s and more) */
const KEEPALIVE_INTERVAL_MS = 60_000;

/** A connection of `Connections`. */
interface BrokerConnection {
  readonly opening: Promise<Connection>;
  /** When an answer last came on it; performance.now() */
  answeredMs: number;
  /** The proof that is under way */
  proof: Promise<boolean> | undefined;
}

/** A request to one broker, as the library sends it. */
export type KafkaRequest<T> = (connection: Connection) => Promise<T>;

/** How a request ended. */
type Outcome<T> = { readonly answer: T } | { readonly asked: Promise<Outcome<T>>; readonly error: unknown };

/** What is asked for, in two forms. */
export interface RequestName {
  /** Completes `Cannot ...: each of 3 brokers failed` */
  readonly action: string;
  /** Code of the error when a broker refuses it, unless Kafka's error has a code of its own */
  readonly code: string;
}

/**
 * Connections of one session of a slot to the brokers of one Kafka client, by address. A connection is opened when its
 * broker is first asked, and dropped when a request on it fails; each new one reads the secrets again.
 *
 * Nothing here retries: a failure goes to the producer or to the slot, which decide when to try again.
 */
export class Connections {
  /** Of the brokers connected to so far */
  readonly versions = new ApiVersions();
  readonly #config: KafkaClientConfig;
  readonly #log: Logger;
  readonly #identity: ClusterIdentity | undefined;
  readonly #byAddress = new Map<string, BrokerConnection>();
  /** Every connection whose socket may be open, including those that are being opened */
  readonly #opened = new Set<Connection>();
  /** Addresses of brokers whose last request failed, or waits for its answer for too long */
  readonly #failing = new Set<string>();
  #isReachable = false;
  #isClosed = false;

  /** Opens nothing yet. */
  constructor(config: KafkaClientConfig, log: Logger, identity?: ClusterIdentity) {
    this.#config = config;
    this.#log = log;
    this.#identity = identity;
  }

  /** True when the last contact succeeded: a broker has answered since all of them failed. */
  get isReachable(): boolean {
    return this.#isReachable;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Destroys every socket at once, because a broker that no longer answers must not delay the end of a session. */
  close(): void {
    this.#isClosed = true;
    for (const connection of this.#opened) connection.socket?.destroy();
  }

  /**
   * Asks the brokers of the configuration and those of the metadata, one after the other, until one answers. A silent one does
   * not keep the next from being asked, and brokers whose last request failed or has no answer yet come last.
   * @throws SinkError, SecretError
   */
  async askAny<T>(
    { action, code }: RequestName,
    metadataBrokers: Iterable<ServerAddress>,
    request: KafkaRequest<T>,
  ): Promise<T> {
    const brokers = new Map(
      [...this.#config.brokers, ...metadataBrokers].map((broker) => [formatAddress(broker), broker]),
    );
    const isFailing = (broker: ServerAddress) => Number(this.#failing.has(formatAddress(broker)));
    const waiting = [...brokers.values()].sort((one, other) => isFailing(one) - isFailing(other));
    const pending = new Set<Promise<Outcome<T>>>();
    const errors: NotifierError[] = [];
    while (waiting.length > 0 || pending.size > 0) {
      const broker = waiting.shift();
      if (broker !== undefined) pending.add(this.#outcome(broker, request));
      const outcome = await firstOutcome(pending, waiting.length > 0 ? SILENCE_MS : undefined);
      if (outcome === undefined) continue;
      if ('answer' in outcome) return outcome.answer;
      const { asked, error } = outcome;
      pending.delete(asked);
      // The next broker would give the same answer.
      if (error instanceof ResponseError) throw this.#failure(action, code, error);
      errors.push(error instanceof NotifierError ? error : this.#failure(action, 'broker_unreachable', error));
      if (this.#isClosed) waiting.length = 0;
    }
    this.#isReachable = false;
    const [first] = errors as [NotifierError];
    if (errors.length === 1 || first instanceof SecretError) throw first;
    throw new SinkError(`Cannot ${action}: each of ${errors.length} brokers failed`, {
      code: 'brokers_unreachable',
      retriable: errors.some((error) => error instanceof SinkError && error.retriable),
      advice: first.advice,
      cause: new AggregateError(errors, 'the error of each broker'),
      place: { kafkaClient: this.#config.name },
    });
  }

  /**
   * Asks one broker. A connection on which no readable answer comes is dropped, and one that was idle is proved first.
   * @throws SinkError or SecretError when there is no connection, the library's error when the request fails
   */
  async ask<T>(broker: ServerAddress, request: KafkaRequest<T>): Promise<T> {
    const address = formatAddress(broker);
    const silence = setTimeout(() => this.#failing.add(address), SILENCE_MS).unref();
    let used = this.#connect(broker);
    try {
      if (!(await this.#isProved(used))) {
        this.#drop(address, used);
        used = this.#connect(broker);
      }
      const answer = await request(await used.opening);
      this.#noteAnswer(address, used);
      return answer;
    } catch (error) {
      if (error instanceof ResponseError) {
        this.#noteAnswer(address, used);
      } else {
        this.#failing.add(address);
        this.#drop(address, used);
      }
      throw error;
    } finally {
      clearTimeout(silence);
    }
  }

  #outcome<T>(broker: ServerAddress, request: KafkaRequest<T>): Promise<Outcome<T>> {
    const asked: Promise<Outcome<T>> = this.ask(broker, request).then(
      (answer) => ({ answer }),
      (error: unknown) => ({ asked, error }),
    );
    return asked;
  }

  #noteAnswer(address: string, connection: BrokerConnection): void {
    connection.answeredMs = performance.now();
    this.#failing.delete(address);
    this.#isReachable = true;
  }

  #connect(broker: ServerAddress): BrokerConnection {
    const address = formatAddress(broker);
    const known = this.#byAddress.get(address);
    if (known !== undefined) return known;
    const connection: BrokerConnection = {
      opening: this.#open(broker),
      answeredMs: performance.now(),
      proof: undefined,
    };
    this.#byAddress.set(address, connection);
    connection.opening.then(
      (opened) => opened.once('close', () => this.#drop(address, connection)),
      () => this.#drop(address, connection),
    );
    return connection;
  }

  /**
   * False when a connection that was idle does not answer: a batch on it would wait for the whole `request_timeout`. Requests
   * at the same time share one proof.
   */
  async #isProved(connection: BrokerConnection): Promise<boolean> {
    if (performance.now() - connection.answeredMs < PROVED_FOR_MS) return true;
    connection.proof ??= this.#prove(connection).finally(() => {
      connection.proof = undefined;
    });
    return await connection.proof;
  }

  async #prove(connection: BrokerConnection): Promise<boolean> {
    const answer = connection.opening.then((opened) => apiVersionsV3.api.async(opened, 'cdc-notifier', '1'));
    const isAnswered = await settlesWithin(PROOF_TIMEOUT_MS, answer).catch(() => false);
    if (isAnswered) connection.answeredMs = performance.now();
    return isAnswered;
  }

  /** Forgets a connection at once: until its socket reports `close`, the next request would use it. */
  #drop(address: string, dropped: BrokerConnection): void {
    if (this.#byAddress.get(address) === dropped) this.#byAddress.delete(address);
    dropped.opening.then(({ socket }) => socket.destroy()).catch(() => {});
  }

  async #open(broker: ServerAddress): Promise<Connection> {
    const { host, port } = broker;
    if (this.#config.tls === undefined && !isLoopback(host)) {
      this.#log.warn(
        { event: 'kafka_not_encrypted', kafkaClient: this.#config.name, host, port },
        'connection to Kafka is not encrypted, set tls of the client to encrypt it',
      );
    }
    const connection = new Connection(this.#config.clientId, connectionOptions(this.#config));
    // Beside rejecting, the library emits 'error', which without a listener ends the process. What a broker says about a client
    // certificate comes after the handshake (TLS 1.3), and only here: the request itself is just closed.
    boundReauthentication(connection);
    let reported: unknown;
    connection.on('error', (error) => {
      reported ??= error;
    });
    this.#opened.add(connection);
    connection.once('close', () => this.#opened.delete(connection));
    try {
      const connected = connection.connect(host, port);
      destroyOnThrow(connection.socket);
      sendInPieces(connection.socket);
      await connected;
      connection.socket.setKeepAlive(true, KEEPALIVE_INTERVAL_MS);
      const { apiKeys } = await apiVersionsV3.api.async(connection, 'cdc-notifier', '1');
      this.versions.note(apiKeys);
      if (this.#identity !== undefined) {
        const { clusterId } = await this.versions.metadata.async(connection, [], false, false);
        this.#identity.check(clusterId ?? null);
      }
      if (this.#isClosed) connection.socket.destroy();
      return connection;
    } catch (error) {
      connection.socket?.destroy();
      this.#opened.delete(connection);
      if (error instanceof SinkError) throw error;
      const advice = this.#isConfigured(broker) ? undefined : advertisedAdvice(broker);
      const cause = identify(error).id === 'NETWORK' ? (reported ?? error) : error;
      throw this.#failure(`connect to broker ${formatAddress(broker)}`, 'broker_unreachable', cause, advice);
    }
  }

  #isConfigured(broker: ServerAddress): boolean {
    return this.#config.brokers.some((one) => formatAddress(one) === formatAddress(broker));
  }

  /** @param ownAdvice in place of that for an address of the configuration */
  #failure(action: string, code: string, error: unknown, ownAdvice?: string): SinkError {
    const { id, advice, verdict } = judgeKafkaError(identify(error));
    return new SinkError(`Cannot ${action}: ${id}`, {
      code: codeOf(id, code),
      retriable: verdict === 'resend',
      advice: advice ?? ownAdvice ?? connectAdvice(id),
      cause: error,
      place: { kafkaClient: this.#config.name },
    });
  }
}

/** The outcome that comes first; undefined when none comes in time. */
async function firstOutcome<T>(
  pending: ReadonlySet<Promise<Outcome<T>>>,
  timeoutMs: number | undefined,
): Promise<Outcome<T> | undefined> {
  if (timeoutMs === undefined) return await Promise.race(pending);
  const silence = Promise.withResolvers<undefined>();
  const timer = setTimeout(silence.resolve, timeoutMs, undefined);
  try {
    return await Promise.race([...pending, silence.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** The configuration names other addresses, which work. */
function advertisedAdvice(broker: ServerAddress): string {
  return (
    `The cluster itself gives the address ${formatAddress(broker)} for this broker: make it reachable from here (name ` +
    'resolution, firewall, port), or correct advertised.listeners of the broker'
  );
}
