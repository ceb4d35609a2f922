/**
 * Answers of real brokers to the requests that this service makes, kept in `recorded-answers.jsonl`.
 * `bun test/support/kafka/recorded-answers.ts` records them again, from the oldest and the newest Kafka that is tested.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  apiVersionsV3,
  ConfigResourceTypes,
  Connection,
  describeConfigsV4,
  initProducerIdV4,
  type MessageRecord,
  metadataV12,
  produceV9,
  produceV10,
  produceV11,
  type Reader,
} from '@platformatic/kafka';
import { waitFor } from '../process/wait.ts';
import { type KafkaServer, startKafka } from './server.ts';

/** An answer without its length and its header. */
export interface KafkaAnswer {
  /** Version of the broker and what was asked */
  readonly note: string;
  readonly apiKey: number;
  readonly apiVersion: number;
  /** The header ends with (empty) tagged fields */
  readonly hasTaggedHeader: boolean;
  readonly body: Buffer;
}

/** Topics that the recorded answers speak of, with 8 and 3 partitions. */
export const RECORDED_TOPICS = { event: 'events', lifecycle: 'lifecycle' } as const;

const FILE = join(import.meta.dirname, 'recorded-answers.jsonl');
const VERSIONS = ['3.9.2', '4.3.0'];
const PRODUCE_TIMEOUT_MS = 5_000;
const ACKS_ALL = -1;
const HEADER = { plain: 4, tagged: 5 } as const;

/** Reads what was recorded. */
export function readKafkaAnswers(): KafkaAnswer[] {
  return readFileSync(FILE, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => {
      const { hex, ...answer } = JSON.parse(line) as Omit<KafkaAnswer, 'body'> & { readonly hex: string };
      return { ...answer, body: Buffer.from(hex, 'hex') };
    });
}

/** The answer as it goes over the wire. */
export function answerFrame(answer: KafkaAnswer, correlationId: number): Buffer {
  const headerBytes = answer.hasTaggedHeader ? HEADER.tagged : HEADER.plain;
  const head = Buffer.alloc(4 + headerBytes);
  head.writeInt32BE(headerBytes + answer.body.length, 0);
  head.writeInt32BE(correlationId, 4);
  return Buffer.concat([head, answer.body]);
}

async function recordVersion(version: string): Promise<KafkaAnswer[]> {
  await using kafka = await startKafka({ version });
  await kafka.createTopic(RECORDED_TOPICS.event, { partitions: 8 });
  await kafka.createTopic(RECORDED_TOPICS.lifecycle, { partitions: 3 });
  await kafka.createTopic('tight', { config: { 'max.message.bytes': '100' } });
  const answers: KafkaAnswer[] = [];
  let note = '';
  const connection = await openRecording(kafka, (answer) => answers.push({ ...answer, note: `${version} ${note}` }));
  /** An answer with an error code is one like any other; the library throws it. */
  const ask = async (what: string, request: () => Promise<unknown>): Promise<boolean> => {
    note = what;
    return await request().then(
      () => true,
      () => false,
    );
  };
  const topics = Object.values(RECORDED_TOPICS);
  await ask('api versions', () => apiVersionsV3.api.async(connection, 'cdc-notifier', '1'));
  for (const names of [topics, ['missing', ...topics]]) {
    await ask(`metadata of ${names}`, () => metadataV12.api.async(connection, names, false, false));
    await ask(`configuration of ${names}`, () => describe(connection, names));
  }
  // A broker that has just started refuses for a moment.
  await waitFor('a producer id', () =>
    ask('producer id', () => initProducerIdV4.api.async(connection, null, 0, -1n, -1)),
  );
  const one = record(RECORDED_TOPICS.event, 'value');
  const all = [8, 3].flatMap((count, at) =>
    Array.from({ length: count }, (_, partition) => record(topics[at]!, 'value', partition)),
  );
  for (const { api } of [produceV9, produceV10, produceV11]) {
    const send = (records: MessageRecord[]) => api.async(connection, ACKS_ALL, PRODUCE_TIMEOUT_MS, records);
    await ask('produce to one partition', () => send([one]));
    await ask('produce to all partitions', () => send(all));
    await ask('produce too much', () => send([record('tight', 'x'.repeat(200)), one]));
    await ask('produce to a topic that is missing', () => send([record('missing', 'value')]));
  }
  await connection.close();
  return answers;
}

function record(topic: string, value: string, partition = 0): MessageRecord {
  return { topic, partition, value: Buffer.from(value) };
}

function describe(connection: Connection, topics: readonly string[]): Promise<unknown> {
  const resources = topics.map((resourceName) => ({
    resourceType: ConfigResourceTypes.TOPIC,
    resourceName,
    configurationKeys: ['max.message.bytes'],
  }));
  return describeConfigsV4.api.async(connection, resources, false, false);
}

/** A connection that hands on what its parsers are given. */
async function openRecording(
  kafka: KafkaServer,
  onAnswer: (answer: Omit<KafkaAnswer, 'note'>) => void,
): Promise<Connection> {
  const connection = new Connection('recorder');
  const send = connection.send.bind(connection);
  connection.send = (apiKey, apiVersion, createPayload, parser, hasTaggedRequest, hasTaggedHeader, callback) => {
    const recordingParser: typeof parser = (correlationId, key, version, reader: Reader) => {
      onAnswer({ apiKey, apiVersion, hasTaggedHeader, body: Buffer.from(reader.buffer.slice(0)) });
      return parser(correlationId, key, version, reader);
    };
    send(apiKey, apiVersion, createPayload, recordingParser, hasTaggedRequest, hasTaggedHeader, callback);
  };
  await connection.connect('127.0.0.1', kafka.port);
  return connection;
}

if (import.meta.main) {
  const lines: string[] = [];
  for (const version of VERSIONS) {
    for (const { body, ...answer } of await recordVersion(version)) {
      lines.push(`${JSON.stringify({ ...answer, hex: body.toString('hex') })}\n`);
    }
  }
  writeFileSync(FILE, lines.join(''));
  console.log(`${lines.length} answers`);
  process.exit(0);
}
