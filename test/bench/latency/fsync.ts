/** Duration of an fdatasync: the lower bound of a commit's latency. */
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const FSYNC_COUNT = 200;
const PAGE_BYTES = 8192;

/** Appends pages with fdatasync; returns the milliseconds of each. */
export function measureFsync(directory: string): number[] {
  const path = join(directory, 'fsync');
  const file = openSync(path, 'w');
  try {
    const page = Buffer.alloc(PAGE_BYTES, 1);
    return Array.from({ length: FSYNC_COUNT }, () => {
      const startedMs = performance.now();
      writeSync(file, page);
      fdatasyncSync(file);
      return performance.now() - startedMs;
    });
  } finally {
    closeSync(file);
    rmSync(path);
  }
}
