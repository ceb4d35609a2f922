/** Directories that live as long as the test that made them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { guardDirectory, releaseDirectory } from './guardian.ts';

/** A directory under the system's temporary directory that goes away with its contents. */
export interface TemporaryDirectory extends AsyncDisposable {
  readonly path: string;
}

/** Makes an empty directory; `label` tells in its name whose it is. Removed on disposal, or when the process ends. */
export async function temporaryDirectory(label = 'test'): Promise<TemporaryDirectory> {
  const path = await mkdtemp(join(tmpdir(), `cdc-notifier-${label}-`));
  guardDirectory(path);
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true, maxRetries: 10 });
      releaseDirectory(path);
    },
  };
}
