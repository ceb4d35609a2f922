/**
 * Keeps the resident size flat. What is read from sockets and sent to brokers lives in buffers outside of the JavaScript
 * heap; the collector hardly feels them and lets them pile up. So it is called by volume, and sweeps at once; and once
 * more when nothing comes any more, then with the allocator, which gives what it has kept back to the system.
 */
import { gcAndSweep } from 'bun:jsc';

/**
 * Of four readings of backlog a the highest peak of resident memory was 208 MB at 48 MB, 185 MB at 16 MB and 141 MB at 8 MB,
 * which costs 0.3 us a row: most of what is sent was copied into a request, so that as much again is garbage.
 */
const COLLECT_EVERY_BYTES = 10 * 1024 * 1024;
const LOOK_EVERY_MS = 10_000;
/** So much between two looks is what keepalives and a few events bring */
const IDLE_BYTES = 64 * 1024;

let bytesSinceCollection = 0;
let bytesSinceLook = 0;
let looks: Timer | undefined;

/** Counts bytes that came in and are garbage by now, over all slots of the process, and collects when it is time. */
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
