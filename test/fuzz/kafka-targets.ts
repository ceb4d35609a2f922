/** Answers of brokers: recorded ones, damaged, for the parsers alone and over real sockets for the whole Kafka side. */

import { createServer, type Server, type Socket } from 'node:net';
import {
  apiVersionsV3,
  describeConfigsV4,
  initProducerIdV4,
  metadataV12,
  produceV9,
  produceV10,
  produceV11,
  Reader,
  ResponseError,
} from '@platformatic/kafka';
import pino from 'pino';
import { ByteWriter } from '../../src/bytes/writer.ts';
import type { KafkaClientConfig, NamespaceConfig } from '../../src/config/config.ts';
import { judgeKafkaError } from '../../src/failure-policy.ts';
import { Sinks, type SinksOptions } from '../../src/flow/sinks.ts';
import { ApiVersions } from '../../src/kafka/client/api-versions.ts';
import { identify } from '../../src/kafka/client/errors.ts';
import { DeliveryTrial } from '../../src/kafka/produce/delivery-trial.ts';
import { SlotStatus } from '../../src/status/slot-status.ts';
import { answerFrame, type KafkaAnswer, RECORDED_TOPICS, readKafkaAnswers } from '../support/kafka/recorded-answers.ts';
import type { FuzzTarget } from './campaign.ts';
import { below, mutateBytes, pick, type Random } from './mutate.ts';

const HOST = '127.0.0.1';
const API_VERSIONS = 18;
const METADATA = 3;
const PARSERS = [apiVersionsV3, metadataV12, initProducerIdV4, describeConfigsV4, produceV9, produceV10, produceV11];

/** The parsers alone. Their errors are judged as the service judges them. */
export function kafkaParsers(): FuzzTarget {
  const answers = readKafkaAnswers();
  return {
    name: 'kafka-parsers',
    run(random) {
      const answer = pick(random, answers);
      try {
        const parsed = parseAnswer(answer, mutateBytes(answer.body, random));
        if (answer.apiKey === API_VERSIONS)
          new ApiVersions().note((parsed as apiVersionsV3.ApiVersionsResponse).apiKeys);
        return 'answer';
      } catch (error) {
        return judgeKafkaError(identify(error)).verdict;
      }
    },
  };
}

function parseAnswer({ apiKey, apiVersion }: KafkaAnswer, body: Buffer): unknown {
  const { parseResponse } = PARSERS.find(({ api }) => api.key === apiKey && api.version === apiVersion)!;
  return parseResponse(1, apiKey, apiVersion, Reader.from(body));
}

/** True for an answer with an error code, and for one that lacks most of what was asked for. */
function isUnusual(answer: KafkaAnswer): boolean {
  if (answer.note.endsWith('to one partition')) return true;
  try {
    parseAnswer(answer, answer.body);
    return false;
  } catch {
    return true;
  }
}

/** Longest time of a session: several times the sum of all waits below. */
const SESSION_LIMIT_MS = 20_000;
const NAMESPACE = 'default/default';
const ROUND_RECORD_COUNT = 20;

/**
 * Whole sessions with a broker that damages its answers: open, send records, see them acknowledged or failed, close.
 * The order of requests depends on timing too, so a failure may need several runs of its mutation to appear again.
 */
export async function kafkaSessions(): Promise<FuzzTarget> {
  const lanes = 8;
  const brokers = await Promise.all(Array.from({ length: lanes }, () => DamagingBroker.start()));
  const idle = [...brokers];
  return {
    name: 'kafka-sessions',
    lanes,
    slowestMs: SESSION_LIMIT_MS,
    async run(random) {
      const broker = idle.pop()!;
      broker.random = random;
      try {
        return await runSession(broker.port);
      } finally {
        broker.reset();
        idle.push(broker);
      }
    },
    async close() {
      await Promise.all(brokers.map((broker) => broker[Symbol.asyncDispose]()));
    },
  };
}

async function runSession(port: number): Promise<string> {
  const outcome = Promise.withResolvers<string>();
  let sinks: Sinks | undefined;
  const timer = setTimeout(() => outcome.reject(new Error('The session did not end')), SESSION_LIMIT_MS);
  const noteAcknowledged = () => {
    if (sinks?.lowestUnacknowledged === Number.POSITIVE_INFINITY) outcome.resolve('acknowledged');
  };
  try {
    const opening = Sinks.open(sessionOptions(port));
    sinks = await Promise.race([opening, outcome.promise as Promise<never>]);
    sinks.start({
      onAcknowledged: noteAcknowledged,
      onFailed: outcome.reject,
      onResend: () => {},
      onProduced: () => {},
      onTopicChanged: () => {},
    });
    const { records } = sinks.route(NAMESPACE);
    for (let ordinal = 1; ordinal <= 2 * ROUND_RECORD_COUNT; ordinal++) {
      const { queues, topic, tally } = ordinal % 2 === 0 ? records.event : records.lifecycle;
      const key = new ByteWriter().copy(Buffer.from(`key ${ordinal}`));
      queues.append(topic, key, new ByteWriter().copy(Buffer.alloc(50)), { ordinal, tally });
      // The second half is sent when the first is answered, with or without a wait.
      if (ordinal % ROUND_RECORD_COUNT === 0) sinks.flush();
    }
    return await outcome.promise;
  } finally {
    clearTimeout(timer);
    sinks?.close();
  }
}

function sessionOptions(port: number): SinksOptions {
  const client: KafkaClientConfig = {
    name: 'main',
    brokers: [{ host: HOST, port }],
    clientId: 'fuzz',
    tls: undefined,
    sasl: undefined,
    compression: 'none',
    acceptClusterId: undefined,
    connectTimeoutMs: 1_000,
    requestTimeoutMs: 50,
    maxRequestBytes: 104_857_600,
    metadataMaxAgeMs: 5,
  };
  const namespace: NamespaceConfig = {
    kafkaClient: 'main',
    eventsinkTopic: RECORDED_TOPICS.event,
    lifecycleTopic: RECORDED_TOPICS.lifecycle,
    replicaIdentity: 'full',
    publishColumns: 'all',
    onMissingOldTuple: 'stop',
    onInvalid: 'stop',
    parkingTopic: undefined,
  };
  return {
    namespaces: new Map([[NAMESPACE, namespace]]),
    kafkaClients: new Map([['main', client]]),
    counts: new SlotStatus({ database: 'main', slot: 'slot', namespaces: [NAMESPACE] }).namespaces,
    resendTimeoutMs: 1,
    maxRetries: 1,
    keptBufferBytes: 1024 * 1024,
    sizeLimits: new Map(),
    trial: new DeliveryTrial(),
    clusterIds: new Map(),
    signal: new AbortController().signal,
    log: pino({ level: 'silent' }),
  };
}

/** Shares of answers that are damaged, unusual, and split: most sessions meet one of these, and some get far. */
const DAMAGED_SHARE = 0.1;
const UNUSUAL_SHARE = 0.05;
const SPLIT_SHARE = 0.05;

/** Sends recorded answers, some of them damaged, cut short, in pieces, or never complete. */
class DamagingBroker implements AsyncDisposable {
  /** By `isUnusual` */
  static readonly #answers = Map.groupBy(readKafkaAnswers(), isUnusual);
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Of the running mutation */
  random: Random = () => 0;

  private constructor() {
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async start(): Promise<DamagingBroker> {
    const broker = new DamagingBroker();
    await new Promise<void>((resolve) => broker.#server.listen(0, HOST, resolve));
    return broker;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** Ends all connections with RST: thousands of sessions would otherwise leave their ports in TIME_WAIT. */
  reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.reset();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    let rest = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
        const end = 4 + rest.readInt32BE(0);
        this.#answer(socket, rest.subarray(4, end));
        rest = rest.subarray(end);
      }
    });
  }

  #answer(socket: Socket, request: Buffer): void {
    const { random } = this;
    const [apiKey, apiVersion] = [request.readInt16BE(0), request.readInt16BE(2)];
    const fitting = (unusual: boolean) =>
      DamagingBroker.#answers.get(unusual)!.filter((one) => one.apiKey === apiKey && one.apiVersion === apiVersion);
    if (fitting(false).length === 0) throw new Error(`No answer is recorded for API ${apiKey} version ${apiVersion}`);
    const unusual = random() < UNUSUAL_SHARE ? fitting(true) : [];
    const answer = pick(random, unusual.length > 0 ? unusual : fitting(false));
    const frame = answerFrame({ ...answer, body: this.#atHome(answer.body) }, request.readInt32BE(4));
    const damaged = random() < DAMAGED_SHARE ? this.#damage(frame) : frame;
    const sent = apiKey === METADATA && leadsAway(damaged, this.port) ? frame : damaged;
    if (random() >= SPLIT_SHARE) {
      socket.write(sent);
      return;
    }
    const middle = below(random, sent.length);
    socket.write(sent.subarray(0, middle));
    // The rest follows, or never comes, or the connection ends instead.
    const choice = random();
    if (choice < 0.5) setImmediate(() => socket.write(sent.subarray(middle)));
    else if (choice < 0.9) socket.end();
  }

  /** Damages header and length too: the result may not be Kafka's protocol at all. */
  #damage(frame: Buffer): Buffer {
    if (this.random() < 0.3) return mutateBytes(frame, this.random);
    const head = frame.subarray(0, 8);
    const body = mutateBytes(frame.subarray(8), this.random);
    const damaged = Buffer.concat([head, body]);
    damaged.writeInt32BE(damaged.length - 4, 0);
    return damaged;
  }

  /** Replaces the port of the recorded broker in metadata by that of this one. */
  #atHome(body: Buffer): Buffer {
    const at = body.indexOf(HOST);
    if (at < 0) return body;
    const moved = Buffer.from(body);
    moved.writeInt32BE(this.port, at + HOST.length);
    return moved;
  }
}

/** True when a client that believes this metadata would connect to another server. */
function leadsAway(frame: Buffer, port: number): boolean {
  const ends = [frame.length, Math.max(9, Math.min(frame.length, 4 + (frame.length >= 4 ? frame.readInt32BE(0) : 0)))];
  return ends.some((end) => brokersOf(frame.subarray(9, end)).some((one) => one.host !== HOST || one.port !== port));
}

function brokersOf(body: Buffer): readonly { readonly host: string; readonly port: number }[] {
  try {
    return metadataV12.parseResponse(1, METADATA, 12, Reader.from(body)).brokers;
  } catch (error) {
    return error instanceof ResponseError ? (error.response as metadataV12.MetadataResponse).brokers : [];
  }
}
