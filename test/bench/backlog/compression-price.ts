/**
 * `bun test/bench/backlog/compression-price.ts`: CPU and bytes on the wire of a record by codec, in batches of a backlog and of
 * one record. Payloads consist of one letter, which compresses better than real ones, or of noise, which compresses worse.
 */
import { ByteWriter } from '../../../src/bytes/writer.ts';
import { EventPayload } from '../../../src/conversion/payload/payload.ts';
import { writeSinkEvent } from '../../../src/conversion/thrift/mg-proto.ts';
import { codecOf } from '../../../src/kafka/produce/compression.ts';
import { RecordBatch } from '../../../src/kafka/produce/record-batch.ts';
import { seededRandom } from '../../support/codecs/etf.ts';
import { payloadsOf } from '../workload/payload.ts';

const MEASURED_BYTES = 30_000_000;
/** Enough different payloads that no codec finds a text twice in a batch, unlike in a backlog */
const NOISE_VARIANT_COUNT = 512;

function batchOf(payloads: readonly Buffer[], maxBytes: number): RecordBatch {
  const beginning = { firstOrdinal: 0, timestampMs: 0, begunMs: 0 };
  const batch = new RecordBatch({ topic: 'price', partition: 0 }, Buffer.alloc(64), beginning);
  for (let index = 0; index === 0 || batch.length < maxBytes; index++) {
    const data = payloads[index % payloads.length]!;
    const [source_ns, source_id] = [Buffer.from('default/default'), Buffer.from(`process ${index * 7_919}`)];
    const value = new ByteWriter(4096);
    const event = { source_ns, source_id, event_id: BigInt(index), created_at: Buffer.from('2024-05-06T07:08:09Z') };
    writeSinkEvent(value, { event: { ...event, format_version: 1, data: new EventPayload(data, 0, data.length) } });
    batch.append(new ByteWriter(64).copy(Buffer.from(`default/default ${source_id}`)), value, {
      producedCount: 0,
    });
  }
  return batch;
}

function nsOf(work: () => void, count: number): number {
  for (let round = 0; round < count / 4; round++) work();
  const from = process.cpuUsage();
  for (let round = 0; round < count; round++) work();
  const { user, system } = process.cpuUsage(from);
  return ((user + system) * 1000) / count;
}

function noiseOf(length: number, seed: number): string {
  const random = seededRandom(seed);
  return Array.from({ length }, () => String.fromCharCode(0x30 + Math.floor(random() * 64))).join('');
}

const rows = [];
for (const payloadBytes of [270, 2_000]) {
  const letter = payloadsOf(payloadBytes, { filler: (length) => 'x'.repeat(length) });
  const noise = payloadsOf(payloadBytes, { filler: noiseOf, variantCount: NOISE_VARIANT_COUNT });
  for (const [filler, payloads] of Object.entries({ letter, noise })) {
    for (const batch of [batchOf(payloads, 128 * 1024), batchOf(payloads, 0)]) {
      const perRecord = (amount: number) => Math.round(amount / batch.recordCount);
      const row = { payloadBytes, filler, recordCount: batch.recordCount, plainBytes: perRecord(batch.length) };
      const prices = (['gzip', 'snappy', 'lz4', 'zstd'] as const).map((type) => {
        const codec = codecOf(type)!;
        const ns = nsOf(() => batch.sealedLength(codec), MEASURED_BYTES / Math.max(batch.length, 10_000));
        return { [`${type} ns`]: perRecord(ns), [`${type} bytes`]: perRecord(batch.sealedLength(codec)) };
      });
      rows.push(Object.assign(row, ...prices));
    }
  }
}
console.table(rows);
