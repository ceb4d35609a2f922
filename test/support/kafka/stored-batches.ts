/** Reads record batches from a broker's log segments on disk. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const COMPRESSION_BITS = 0b111;

/** A record batch on disk. */
export interface StoredBatch {
  /** Compression codec by Kafka's number; 0 = none */
  readonly codec: number;
  /** Size including the header */
  readonly bytes: number;
}

/** The batches of a topic on this broker, those of a partition in offset order. */
export function storedBatches(dataDirectory: string, topic: string): StoredBatch[] {
  const partitions = readdirSync(dataDirectory).filter((name) => name.replace(/-\d+$/, '') === topic);
  const segments = partitions.flatMap((partition) => {
    const directory = join(dataDirectory, partition);
    const names = readdirSync(directory).filter((name) => name.endsWith('.log'));
    return names.sort().map((name) => join(directory, name));
  });
  return segments.flatMap((segment) => {
    const bytes = readFileSync(segment);
    const batches: StoredBatch[] = [];
    // Segments are preallocated: zero bytes follow the last batch.
    for (let at = 0; at + 23 <= bytes.length && bytes.readInt32BE(at + 8) > 0; ) {
      const length = 12 + bytes.readInt32BE(at + 8);
      batches.push({ codec: bytes.readInt16BE(at + 21) & COMPRESSION_BITS, bytes: length });
      at += length;
    }
    return batches;
  });
}
