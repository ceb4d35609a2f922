/**
 * Chooses the files of the image: the program, and from Debian only what the program needs. There is no shell, no
 * package manager and no set-uid file.
 */
import { lstatSync, readdirSync } from 'node:fs';
import { cp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { $, Glob } from 'bun';
import type { DebianPackage } from './debian.ts';

/** The unprivileged user, with the same number as in the distroless images. */
export const NONROOT = 65532;

/** The files to copy from each package. */
const TAKEN: Readonly<Record<string, readonly string[]>> = {
  'base-files': ['etc/debian_version', 'usr/lib/os-release'],
  // Its certificates are joined into one file.
  'ca-certificates': [],
  // The program is linked with these only; name resolution is part of libc.
  libc6: ['usr/lib{,64}/ld-linux-*', 'usr/lib/*-linux-gnu/{ld-linux-*,libc.so.6,libdl.so.2,libm.so.6,libpthread.so.0}'],
  tzdata: ['usr/share/zoneinfo/**'],
};

const FILES: Readonly<Record<string, string>> = {
  'etc/passwd': `root:x:0:0:root:/:/sbin/nologin\nnonroot:x:${NONROOT}:${NONROOT}:nonroot:/:/sbin/nologin\n`,
  'etc/group': `root:x:0:\nnonroot:x:${NONROOT}:\n`,
  'etc/nsswitch.conf': 'passwd: files\ngroup: files\nhosts: files dns\n',
};

/** Symbolic links, as in base-files. */
const LINKS: Readonly<Record<string, string>> = {
  lib: 'usr/lib',
  lib64: 'usr/lib64',
  'etc/os-release': '../usr/lib/os-release',
};

/** Mount points: not every engine creates missing directories. */
const DIRECTORIES = ['etc/cdc-notifier', 'proc', 'usr/lib64'];

/** Copies the files from Debian into an empty directory. */
export async function layOutSystem(root: string, packages: readonly DebianPackage[]): Promise<void> {
  for (const path of DIRECTORIES) await mkdir(join(root, path), { recursive: true });
  for (const [path, text] of Object.entries(FILES)) await put(root, path, text);
  for (const [path, target] of Object.entries(LINKS)) await symlink(target, join(root, path));
  for (const { name, file } of packages) {
    const unpacked = `${root}-${name}`;
    await $`dpkg-deb --extract ${file} ${unpacked}`.quiet();
    await takeFiles(unpacked, root, [...(TAKEN[name] ?? []), `usr/share/doc/${name}/copyright`]);
    // Vulnerability scanners look here for the packages of a distroless image.
    await put(root, `var/lib/dpkg/status.d/${name}`, await $`dpkg-deb --field ${file}`.text());
    if (name === 'ca-certificates') await put(root, 'etc/ssl/certs/ca-certificates.crt', await authorities(unpacked));
    await rm(unpacked, { recursive: true });
  }
}

/** Copies the program and its documents into an empty directory. */
export async function layOutProgram(
  root: string,
  program: string,
  documents: Readonly<Record<string, string>>,
): Promise<void> {
  await mkdir(join(root, 'usr/bin'), { recursive: true });
  await cp(program, join(root, 'usr/bin/cdc-notifier'));
  for (const [name, text] of Object.entries(documents)) await put(root, `usr/share/doc/cdc-notifier/${name}`, text);
}

async function takeFiles(from: string, to: string, patterns: readonly string[]): Promise<void> {
  for (const pattern of patterns) {
    // `onlyFiles` would leave out symbolic links.
    const found = [...new Glob(pattern).scanSync({ cwd: from, onlyFiles: false })];
    const paths = found.filter((path) => !lstatSync(join(from, path)).isDirectory());
    if (paths.length === 0) throw new Error(`Cannot find ${pattern} in ${from}`);
    for (const path of paths) {
      await mkdir(dirname(join(to, path)), { recursive: true });
      await cp(join(from, path), join(to, path), { verbatimSymlinks: true });
    }
  }
}

/** Joins the certificates as update-ca-certificates does. */
async function authorities(unpacked: string): Promise<string> {
  const directory = join(unpacked, 'usr/share/ca-certificates');
  const files = [...new Glob('**/*.crt').scanSync({ cwd: directory, absolute: true })].sort();
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8')));
  return texts.map((text) => `${text.trim()}\n`).join('');
}

async function put(root: string, path: string, text: string): Promise<void> {
  const file = join(root, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

/** Packs a directory into a tar: root owns every file, only root may write, and every timestamp is `epoch`. */
export async function archive(directory: string, epoch: number): Promise<Uint8Array> {
  const options = [
    '--format=gnu',
    '--sort=name',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '--mode=u+rwX,go+rX,go-w',
  ];
  const entries = readdirSync(directory).sort();
  return new Uint8Array(await $`tar -c ${options} --mtime=@${epoch} -C ${directory} ${entries}`.arrayBuffer());
}
