/** Record batches as a broker has them on disk. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const COMPRESSION_BITS = 0b111;

/** Kafka's numbers of the codecs by which a topic's batches are compressed on this broker, 0 = not at all; one for each batch. */
export function storedCodecs(dataDirectory: string, topic: string): number[] {
  const partitions = readdirSync(dataDirectory).filter((name) => name.replace(/-\d+$/, '') === topic);
  const segments = partitions.flatMap((partition) => {
    const directory = join(dataDirectory, partition);
    return readdirSync(directory).flatMap((name) => (name.endsWith('.log') ? [join(directory, name)] : []));
  });
  return segments.flatMap((segment) => {
    const bytes = readFileSync(segment);
    const codecs: number[] = [];
    // A segment is allocated ahead: what was not written yet is zero.
    for (let at = 0; at + 23 <= bytes.length && bytes.readInt32BE(at + 8) > 0; at += 12 + bytes.readInt32BE(at + 8)) {
      codecs.push(bytes.readInt16BE(at + 21) & COMPRESSION_BITS);
    }
    return codecs;
  });
}
