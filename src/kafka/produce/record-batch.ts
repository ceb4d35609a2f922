/**
 * The layout of a record batch (magic 2; Kafka protocol guide, "Record Batch"):
 *
 *     baseOffset i64 | batchLength i32 | partitionLeaderEpoch i32 | magic i8 | crc u32 | attributes i16
 *     | lastOffsetDelta i32 | baseTimestamp i64 | maxTimestamp i64 | producerId i64 | producerEpoch i16
 *     | baseSequence i32 | recordCount i32 | records
 *
 * and one record: length varint | attributes i8 | timestampDelta varlong | offsetDelta varint
 * | keyLength varint | key | valueLength varint | value | headerCount varint, with zig-zag varints.
 * Compression covers all the records and nothing else; its number is in the attributes.
 */
import { crc32c } from '../../bytes/crc32c.ts';
import type { ByteWriter } from '../../bytes/writer.ts';
import type { ProducerIdentity } from '../client/cluster.ts';
import { LARGE_PART_BYTES } from '../client/large-requests.ts';
import type { Codec } from './compression.ts';

/** Bytes before the first record. */
export const BATCH_HEADER_BYTES = 61;

const MAGIC_AT = 16;
const CRC_AT = 17;
const ATTRIBUTES_AT = 21;
const LAST_OFFSET_DELTA_AT = 23;
const BASE_TIMESTAMP_AT = 27;
const MAX_TIMESTAMP_AT = 35;
const PRODUCER_ID_AT = 43;
const PRODUCER_EPOCH_AT = 51;
const BASE_SEQUENCE_AT = 53;
const RECORD_COUNT_AT = 57;

/** Counts records that Kafka has acknowledged. */
export interface RecordTally {
  producedCount: number;
}

/** How many records of a batch belong to one tally. */
interface TallyShare {
  readonly tally: RecordTally;
  count: number;
}

/** What a batch is created with. */
export interface BatchBeginning {
  /** Ordinal (flow/progress.ts) of the first record: no record at or above it is durable before this batch is */
  readonly firstOrdinal: number;
  /** Wall clock, ms since 1970; the timestamp of all its records */
  readonly timestampMs: number;
  /** The same moment by performance.now(), ms */
  readonly begunMs: number;
}

/** Size in bytes of a zig-zag varint that holds a number of 0 and more. */
function varintBytes(value: number): number {
  let rest = value * 2;
  let size = 1;
  while (rest >= 0x80) {
    rest = Math.floor(rest / 0x80);
    size++;
  }
  return size;
}

/**
 * Uncompressed size of a batch with this record alone. Without compression, the broker holds it against the topic's
 * `max.message.bytes`.
 */
export function singleRecordBatchBytes(keyBytes: number, valueBytes: number): number {
  const body = recordBodyBytes(0, keyBytes, valueBytes);
  return BATCH_HEADER_BYTES + varintBytes(body) + body;
}

/** Size of a record without its length field; attributes, timestamp delta (always 0) and header count take a byte each. */
function recordBodyBytes(offsetDelta: number, keyBytes: number, valueBytes: number): number {
  return 3 + varintBytes(offsetDelta) + varintBytes(keyBytes) + keyBytes + varintBytes(valueBytes) + valueBytes;
}

/**
 * Records of one partition, in the order in which Kafka will store them. They are written in place as they come, and
 * compressed in place when the batch is sealed.
 */
export class RecordBatch {
  readonly topic: string;
  readonly partition: number;
  readonly beginning: BatchBeginning;
  /** Key of the first record, for the error about a record that is too large for its topic */
  firstKey = '';
  /** The batch on the wire is the first `length` of these bytes */
  bytes: Buffer;
  length = BATCH_HEADER_BYTES;
  recordCount = 0;
  /** Set by `seal`. From then on the bytes never change, so every resend is identical */
  sealed = false;
  /** One for each tally; there are few, and consecutive records mostly have the same */
  readonly #shares: TallyShare[] = [];
  #share: TallyShare | undefined;
  /** Length before compression; undefined while the batch is not compressed */
  #plainLength: number | undefined;

  constructor(
    place: { readonly topic: string; readonly partition: number },
    buffer: Buffer,
    beginning: BatchBeginning,
  ) {
    this.topic = place.topic;
    this.partition = place.partition;
    this.bytes = buffer;
    this.beginning = beginning;
  }

  /** Length without compression: it decides when the batch is closed, and is the memory that it takes. */
  get plainLength(): number {
    return this.#plainLength ?? this.length;
  }

  /** Length that the batch would have with one more record. */
  lengthWith(keyBytes: number, valueBytes: number): number {
    const body = recordBodyBytes(this.recordCount, keyBytes, valueBytes);
    return this.length + varintBytes(body) + body;
  }

  /** Adds a record at the end. The caller has compared `lengthWith` with the topic's limit. */
  append(key: ByteWriter, value: ByteWriter, tally: RecordTally): void {
    this.#append(key, value, tally, false);
  }

  /** As `append`, and a large first value is not copied: the batch takes the storage of its writer, which is empty then. */
  appendTaking(key: ByteWriter, value: ByteWriter, tally: RecordTally): void {
    this.#append(key, value, tally, this.recordCount === 0 && value.length >= LARGE_PART_BYTES);
  }

  #append(key: ByteWriter, value: ByteWriter, tally: RecordTally, isTaken: boolean): void {
    const body = recordBodyBytes(this.recordCount, key.length, value.length);
    const recordBytes = varintBytes(body) + body;
    if (this.#share?.tally !== tally) this.#share = this.#shareOf(tally);
    this.#share.count++;
    if (this.recordCount === 0) this.firstKey = key.bytes.toString('utf8', 0, key.length);
    const valueBytes = value.length;
    if (isTaken) this.bytes = value.detach(this.length + recordBytes - valueBytes - 1, 1);
    else this.#reserve(recordBytes);
    let at = this.#varint(this.length, body);
    const bytes = this.bytes;
    bytes[at++] = 0; // attributes
    bytes[at++] = 0; // timestamp delta: all records of a batch have the time of its creation
    at = this.#varint(at, this.recordCount);
    at = this.#varint(at, key.length);
    key.bytes.copy(bytes, at, 0, key.length);
    at += key.length;
    at = this.#varint(at, valueBytes);
    if (!isTaken) value.bytes.copy(bytes, at, 0, valueBytes);
    at += valueBytes;
    bytes[at++] = 0; // header count
    this.length = at;
    this.recordCount++;
  }

  /** Length that `seal` would give the batch. */
  sealedLength(codec: Codec): number {
    const records = this.#records();
    return BATCH_HEADER_BYTES + Math.min(codec.compress(records).length, records.length);
  }

  /**
   * Compresses the records, if a codec is given and makes them smaller, and writes the header.
   * @param baseSequence number of records that this producer has sent to the partition before
   */
  seal(identity: ProducerIdentity, baseSequence: number, codec?: Codec): void {
    const attributes = codec === undefined ? 0 : this.#compress(codec);
    const bytes = this.bytes;
    bytes.writeBigInt64BE(0n, 0);
    bytes.writeInt32BE(this.length - 12, 8);
    bytes.writeInt32BE(-1, 12); // the leader fills in its epoch
    bytes[MAGIC_AT] = 2;
    bytes.writeInt16BE(attributes, ATTRIBUTES_AT);
    bytes.writeInt32BE(this.recordCount - 1, LAST_OFFSET_DELTA_AT);
    bytes.writeBigInt64BE(BigInt(this.beginning.timestampMs), BASE_TIMESTAMP_AT);
    bytes.writeBigInt64BE(BigInt(this.beginning.timestampMs), MAX_TIMESTAMP_AT);
    bytes.writeBigInt64BE(identity.producerId, PRODUCER_ID_AT);
    bytes.writeInt16BE(identity.producerEpoch, PRODUCER_EPOCH_AT);
    bytes.writeInt32BE(baseSequence, BASE_SEQUENCE_AT);
    bytes.writeInt32BE(this.recordCount, RECORD_COUNT_AT);
    bytes.writeUInt32BE(crc32c(bytes.subarray(ATTRIBUTES_AT, this.length)), CRC_AT);
    this.sealed = true;
  }

  /** Adds the records to their tallies, after Kafka has acknowledged the batch. */
  settle(): void {
    for (const { tally, count } of this.#shares) tally.producedCount += count;
  }

  /** The bytes on the wire; shares memory with the batch. */
  view(): Buffer {
    return this.bytes.subarray(0, this.length);
  }

  #records(): Buffer {
    return this.bytes.subarray(BATCH_HEADER_BYTES, this.length);
  }

  /** Replaces the records by the compressed ones if those are smaller; returns the attributes. */
  #compress(codec: Codec): number {
    const records = this.#records();
    const compressed = codec.compress(records);
    if (compressed.length >= records.length) return 0;
    this.#plainLength = this.length;
    this.length = BATCH_HEADER_BYTES + compressed.copy(records);
    return codec.attributes;
  }

  #shareOf(tally: RecordTally): TallyShare {
    const known = this.#shares.find((share) => share.tally === tally);
    if (known !== undefined) return known;
    const share = { tally, count: 0 };
    this.#shares.push(share);
    return share;
  }

  #reserve(more: number): void {
    const needed = this.length + more;
    if (needed <= this.bytes.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.bytes.length * 2));
    this.bytes.copy(grown, 0, 0, this.length);
    this.bytes = grown;
  }

  /** Writes a zig-zag varint of a number of 0 and more; returns where the next byte goes. */
  #varint(at: number, value: number): number {
    const bytes = this.bytes;
    let rest = value * 2;
    let next = at;
    while (rest >= 0x80) {
      bytes[next++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    bytes[next++] = rest;
    return next;
  }
}
