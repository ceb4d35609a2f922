/** Programs of the other architecture, run by QEMU in user mode. */
import { join } from 'node:path';
import { aptOptions } from '../../src/build/image/debian.ts';
import { makeOnce } from '../../src/build/make-once.ts';
import { CACHE_DIRECTORY } from '../support/process/directories.ts';
import { runProgram } from '../support/process/run-program.ts';
import { temporaryDirectory } from '../support/process/temporary-directory.ts';

/** As QEMU names processors. */
const PROCESSORS = { amd64: 'x86_64', arm64: 'aarch64' };

/** Path of a program without dependencies that runs programs of `architecture`; fetched from Debian the first time. */
export async function fetchEmulator(architecture: keyof typeof PROCESSORS): Promise<string> {
  const name = `qemu-${PROCESSORS[architecture]}`;
  const path = join(CACHE_DIRECTORY, name);
  await makeOnce(path, async (partial) => {
    await using directory = await temporaryDirectory('emulator');
    await runProgram('apt-get', [...(await aptOptions()), '-qq', 'download', 'qemu-user'], { cwd: directory.path });
    const [file] = [...new Bun.Glob('*.deb').scanSync({ cwd: directory.path, absolute: true })];
    // Of 60 programs only one is unpacked.
    const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/bin/$2" > "$3" && chmod 755 "$3"';
    await runProgram('bash', ['-o', 'pipefail', '-c', unpack, 'unpack', file!, name, partial]);
  });
  return path;
}
