/** Temporary directories that are removed with the test that created them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { guardDirectory, releaseDirectory } from './guardian.ts';

/** A directory in the system's temporary directory; disposal removes it. */
export interface TemporaryDirectory extends AsyncDisposable {
  readonly path: string;
}

/** Creates an empty directory with `label` in its name. It is removed on disposal, or when the process ends. */
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
