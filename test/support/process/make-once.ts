/** Files that are dear to make and are kept between runs. */
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';

/** The project's directory. */
export const PROJECT_DIRECTORY = resolve(import.meta.dirname, '../../..');

/** Where such files are kept: `.cache` of the project. */
export const CACHE_DIRECTORY = resolve(PROJECT_DIRECTORY, '.cache');

/**
 * Makes `path` by `make`, which is given another name beside it: nobody ever sees a half-made one, and of several that
 * make the same at once the first wins.
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
