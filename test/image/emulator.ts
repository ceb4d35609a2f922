/** QEMU in user mode, which runs programs of the other architecture. */
import { join } from 'node:path';
import { aptOptions } from '../../src/build/image/debian.ts';
import { makeOnce } from '../../src/build/make-once.ts';
import { CACHE_DIRECTORY } from '../support/process/directories.ts';
import { runProgram } from '../support/process/run-program.ts';
import { temporaryDirectory } from '../support/process/temporary-directory.ts';

/** QEMU's names of the processors. */
const PROCESSORS = { amd64: 'x86_64', arm64: 'aarch64' };

/** Path of a static program that runs programs of `architecture`; the first call downloads it from Debian. */
export async function fetchEmulator(architecture: keyof typeof PROCESSORS): Promise<string> {
  const name = `qemu-${PROCESSORS[architecture]}`;
  const path = join(CACHE_DIRECTORY, name);
  await makeOnce(path, async (partial) => {
    await using directory = await temporaryDirectory('emulator');
    await runProgram('apt-get', [...(await aptOptions()), '-qq', 'download', 'qemu-user'], { cwd: directory.path });
    const [file] = [...new Bun.Glob('*.deb').scanSync({ cwd: directory.path, absolute: true })];
    // The package contains 60 programs; unpack one.
    const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/bin/$2" > "$3" && chmod 755 "$3"';
    await runProgram('bash', ['-o', 'pipefail', '-c', unpack, 'unpack', file!, name, partial]);
  });
  return path;
}
