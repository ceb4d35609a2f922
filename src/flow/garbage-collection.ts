/**
 * Keeps the resident size flat. Bytes read from sockets and sent to brokers live in buffers outside the JavaScript heap,
 * which the collector hardly counts, so that they accumulate. So the service collects by volume, and sweeps at once; and
 * once more when the stream becomes idle, then together with the allocator, which returns free memory to the system.
 */
import { gcAndSweep } from 'bun:jsc';

/**
 * In four readings of backlog a the highest peak of resident memory was 208 MB at 48 MB, 185 MB at 16 MB and 141 MB at 8 MB,
 * which costs 0.3 us a row: most of what is sent was copied into a request, so that the garbage is twice the volume.
 */
const COLLECT_EVERY_BYTES = 10 * 1024 * 1024;
const LOOK_EVERY_MS = 10_000;
/** Keepalives and a few events bring this much between two looks */
const IDLE_BYTES = 64 * 1024;

let bytesSinceCollection = 0;
let bytesSinceLook = 0;
let looks: Timer | undefined;

/** Counts received bytes, which soon become garbage, over all slots of the process; collects by volume. */
export function noteGarbage(bytes: number): void {
  bytesSinceCollection += bytes;
  bytesSinceLook += bytes;
  if (bytesSinceCollection < COLLECT_EVERY_BYTES) return;
  bytesSinceCollection = 0;
  gcAndSweep();
  looks ??= setInterval(collectWhenIdle, LOOK_EVERY_MS).unref();
}

function collectWhenIdle(): void {
  if (bytesSinceLook <= IDLE_BYTES) {
    clearInterval(looks);
    looks = undefined;
    Bun.gc(true);
  }
  bytesSinceLook = 0;
}
