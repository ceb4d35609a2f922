/** Measures each stage of the record path and prints a table; see stages.ts, which compiles and runs this. */
import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import { convertChange, type RecordDraft } from '../../../src/conversion/convert.ts';
import { Progress } from '../../../src/flow/progress.ts';
import { BatchBuffers } from '../../../src/kafka/produce/batch-buffers.ts';
import { phash2 } from '../../../src/kafka/produce/partitioner.ts';
import { RecordBatch } from '../../../src/kafka/produce/record-batch.ts';
import { MessageSplitter } from '../../../src/postgres/replication/backend-messages.ts';
import { FrameReader } from '../../../src/postgres/replication/frames.ts';
import type { InsertMessage, RowMessage } from '../../../src/postgres/replication/pgoutput.ts';
import { count, table } from '../report/text-table.ts';
import { deepPayloads, payloadsOf } from '../workload/payload.ts';
import { measureStages, type Stage, type StageTiming } from './stages-clock.ts';
import {
  COMMIT_TIME_MICROS,
  emptyTransactions,
  eventRows,
  neutralUpdateRows,
  type Rows,
  recordsOf,
} from './stages-rows.ts';

const CLOCK = { warmUpMs: 150, roundMs: 20, roundCount: 15 };
const PARTITION_COUNT = 8;
const TRANSACTION_COUNT = 1_000;
/** Short transactions per acknowledgement; about so many pass while a produce request is in flight. */
const TRANSACTIONS_PER_ACKNOWLEDGEMENT = 32;
const IDENTITY = { producerId: 1n, producerEpoch: 0 };
const BEGINNING = { firstOrdinal: 1, timestampMs: Date.now(), begunMs: 0 };

const PAYLOADS: Readonly<Record<string, readonly Buffer[]>> = {
  '270 B': payloadsOf(270),
  '2 KB': payloadsOf(2_000),
  '20 KB': payloadsOf(20_000),
  'deep obj': deepPayloads(),
};

/** Stages that every record passes, in order: the cost of a row is their sum. */
const RECORD_STAGES = ['decode', 'convert', 'partition', 'encode', 'CRC'] as const;
/** The same work row by row, as in the service: a check of the sum of the stages. */
const WHOLE = 'all of them, row by row';

const tally = { producedCount: 0 };

function recordStages(rows: Rows<InsertMessage>): Stage[] {
  const countPerRun = rows.messages.length;
  const records = recordsOf(rows);
  const runs: Record<(typeof RECORD_STAGES)[number], () => number> = {
    decode: () => decode(rows.chunk),
    convert: convertStage(rows),
    partition: () => records.reduce((sum, { key }) => sum + partitionOf(key), 0),
    encode: encodeStage(records),
    CRC: checksumStage(records),
  };
  return [
    ...RECORD_STAGES.map((name) => ({ name, countPerRun, run: runs[name] })),
    { name: WHOLE, countPerRun, run: wholeStage(rows) },
  ];
}

function transactionStages(): Stage[] {
  const updates = neutralUpdateRows();
  const transactions = emptyTransactions(TRANSACTION_COUNT);
  return [
    { name: 'update: decode', countPerRun: updates.messages.length, run: () => decode(updates.chunk) },
    { name: 'update: dismiss', countPerRun: updates.messages.length, run: convertStage(updates) },
    { name: 'Begin and Commit: decode', countPerRun: TRANSACTION_COUNT, run: () => decode(transactions) },
    { name: 'accounting', countPerRun: TRANSACTION_COUNT, run: accountingStage() },
  ];
}

function decode(read: Buffer): number {
  let sum = 0;
  const splitter = new MessageSplitter({
    onCopyData(chunk) {
      sum += decodeChunk(chunk);
    },
    onCopyDataPart() {},
    onOther() {},
  });
  splitter.push(read);
  return sum;
}

function decodeChunk(chunk: Buffer): number {
  const reader = new FrameReader();
  let position = 0n;
  let sum = 0;
  reader.start(chunk);
  for (let message = reader.next(); message !== undefined; message = reader.next()) {
    // The position of each row is read, for errors.
    position = reader.walStart as bigint;
    if (message.tag === 'insert' || message.tag === 'update') sum += message.newTuple.lengths[0] as number;
    else if (message.tag === 'commit') sum += Number(message.endLsn & 0xffffn);
  }
  return sum + Number(position);
}

function convertStage({ relation, messages }: Rows<RowMessage>): () => number {
  const draft = { key: new ByteWriter(), value: new ByteWriter() };
  return () => {
    let sum = 0;
    for (const message of messages) {
      const kind = convertChange(relation, message, COMMIT_TIME_MICROS, draft);
      sum += kind === undefined ? 1 : draft.key.length + draft.value.length;
    }
    return sum;
  };
}

function partitionOf(key: ByteWriter): number {
  return phash2(key.bytes, 0, key.length) % PARTITION_COUNT;
}

function encodeStage(records: readonly RecordDraft[]): () => number {
  const buffers = new BatchBuffers(Number.POSITIVE_INFINITY);
  return () => {
    const batch = new RecordBatch({ topic: 'events', partition: 0 }, buffers.take(), BEGINNING);
    for (const { key, value } of records) batch.append(key, value, tally);
    buffers.give(batch.bytes);
    return batch.length;
  };
}

function checksumStage(records: readonly RecordDraft[]): () => number {
  const batch = new RecordBatch({ topic: 'events', partition: 0 }, Buffer.alloc(0), BEGINNING);
  for (const { key, value } of records) batch.append(key, value, tally);
  return () => checksumOf(batch);
}

function checksumOf(batch: RecordBatch): number {
  batch.seal(IDENTITY, 0);
  return batch.bytes.readUInt32BE(17);
}

function wholeStage({ relation, chunk }: Rows<InsertMessage>): () => number {
  const buffers = new BatchBuffers(Number.POSITIVE_INFINITY);
  const draft = { key: new ByteWriter(), value: new ByteWriter() };
  const reader = new FrameReader();
  return () => {
    const batches = Array.from(
      { length: PARTITION_COUNT },
      (_, partition) => new RecordBatch({ topic: 'events', partition }, buffers.take(), BEGINNING),
    );
    reader.start(chunk);
    for (let message = reader.next(); message !== undefined; message = reader.next()) {
      convertChange(relation, message as InsertMessage, COMMIT_TIME_MICROS, draft);
      batches[partitionOf(draft.key)]?.append(draft.key, draft.value, tally);
    }
    const sum = batches.reduce((total, batch) => total + checksumOf(batch), 0);
    for (const batch of batches) buffers.give(batch.bytes);
    return sum;
  };
}

/** Transactions of one record each. */
function accountingStage(): () => number {
  const ends = Array.from({ length: TRANSACTION_COUNT }, (_, index) => BigInt(0x1000 * (index + 1)));
  return () => {
    const progress = new Progress(0n);
    for (const [index, endLsn] of ends.entries()) {
      progress.begin();
      progress.nextOrdinal();
      progress.commit(endLsn, COMMIT_TIME_MICROS);
      if (index % TRANSACTIONS_PER_ACKNOWLEDGEMENT === 0) progress.acknowledgedBelow(Number.POSITIVE_INFINITY);
    }
    return Number(progress.flushed) + progress.lastOrdinal;
  };
}

/** A line of the table: a stage, or a sum of stages. */
interface Line extends Omit<StageTiming, 'spread'> {
  /** What is counted: events of one size, or transactions */
  readonly unit: string;
  /** undefined of a sum */
  readonly spread?: number;
}

function sumOf(unit: string, stage: string, lines: readonly Line[]): Line {
  const medianNs = lines.reduce((sum, line) => sum + line.medianNs, 0);
  const leastNs = lines.reduce((sum, line) => sum + line.leastNs, 0);
  return { unit, stage, medianNs, leastNs };
}

/** All stages in one measurement: otherwise the first would be measured before the compiler is done with it. */
function measure(): Line[] {
  const events = Object.values(PAYLOADS).map((payloads) => recordStages(eventRows(payloads)));
  const timings = measureStages([...events.flat(), ...transactionStages()], CLOCK);
  const take = (unit: string, count: number): Line[] => timings.splice(0, count).map((timing) => ({ unit, ...timing }));
  const ofEvents = Object.keys(PAYLOADS).flatMap((name, index) => {
    const unit = `event, ${name}`;
    const parts = take(unit, events[index]?.length as number);
    return [
      ...parts,
      sumOf(
        unit,
        'sum',
        parts.filter(({ stage }) => stage !== WHOLE),
      ),
    ];
  });
  const parts = take('transaction', timings.length);
  const event = ofEvents.find(({ stage }) => stage === 'sum') as Line;
  return [...ofEvents, ...parts, sumOf('transaction', `sum, with one ${event.unit}`, [...parts, event])];
}

function tableOf(lines: readonly Line[]): string[] {
  const rows = lines.map(({ unit, stage, medianNs, leastNs, spread }, index) => [
    lines[index - 1]?.unit === unit ? '' : unit,
    stage,
    count(medianNs),
    spread === undefined ? '' : `${(spread * 100).toFixed(1)} %`,
    count(leastNs),
    count(1e9 / medianNs),
  ]);
  return table([['', 'stage', 'ns, median', 'spread', 'least', 'a second'], ...rows]);
}

const { values } = parseArgs({ options: { json: { type: 'string' } } });
const machine = { cpu: cpus()[0]?.model ?? 'unknown', bun: Bun.version };
const lines = measure();
process.stdout.write(
  `${machine.cpu}, Bun ${machine.bun}; ns a row or a transaction, medians of ${CLOCK.roundCount} rounds\n`,
);
process.stdout.write(`${tableOf(lines).join('\n')}\n`);
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ machine, lines }, undefined, 2)}\n`);
