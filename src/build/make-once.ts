import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Creates `path` unless it exists. `make` writes to a temporary name beside it, which is renamed when complete, so that no
 * process sees a partial result; of concurrent calls the first wins.
 */
export async function makeOnce(path: string, make: (partial: string) => Promise<void>): Promise<void> {
  if (existsSync(path)) return;
  await mkdir(dirname(path), { recursive: true });
  const partial = `${path}.partial-${crypto.randomUUID()}`;
  try {
    await make(partial);
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    if (!existsSync(path)) throw error;
  }
}
