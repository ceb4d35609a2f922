/**
 * Runs the image as a container engine does, without one: unpacks the layers and starts the entry point as PID 1 of a PID
 * namespace, in its own root file system with /proc mounted, as the nonroot user. Needs root, or user namespaces.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { guardProcess, releaseProcess } from '../support/process/guardian.ts';
import { runProgram } from '../support/process/run-program.ts';
import { type TemporaryDirectory, temporaryDirectory } from '../support/process/temporary-directory.ts';
import { waitFor } from '../support/process/wait.ts';
import type { BinaryLogLine, Ending } from '../support/service/binary.ts';

/** True for root with full capabilities, which root inside a container usually lacks. */
export const IS_ROOT = process.getuid?.() === 0 && Bun.spawnSync(['unshare', '--mount', 'true']).exitCode === 0;

/** The processor of this machine and the other one of the image, by their OCI names. */
export const [ARCHITECTURE, OTHER_ARCHITECTURE] =
  process.arch === 'arm64' ? (['arm64', 'amd64'] as const) : (['amd64', 'arm64'] as const);

/** The configuration of an image (OCI image specification, config.md). */
export interface ImageConfiguration {
  readonly architecture: string;
  readonly config: {
    readonly User: string;
    readonly Entrypoint: readonly string[];
    readonly Cmd: readonly string[];
    readonly Labels: Readonly<Record<string, string>>;
  };
  readonly rootfs: { readonly diff_ids: readonly string[] };
}

/** Unpacks the image of an architecture in `file` to `root`, and verifies every digest. */
export async function unpackImage(
  file: string,
  root: string,
  architecture: string = ARCHITECTURE,
): Promise<ImageConfiguration> {
  await using layout = await temporaryDirectory('layout');
  await runProgram('tar', ['-xf', file, '-C', layout.path]);
  const blob = async ({ digest }: { digest: string }): Promise<Buffer> => {
    const content = await readFile(join(layout.path, 'blobs', digest.replace(':', '/')));
    if (digestOf(content) !== digest)
      throw new Error(`Cannot unpack ${file}: blob ${digest} has digest ${digestOf(content)}`);
    return content;
  };
  const json = async (descriptor: { digest: string }) => JSON.parse((await blob(descriptor)).toString());
  const index = JSON.parse(await readFile(join(layout.path, 'index.json'), 'utf8'));
  const { manifests } = await json(index.manifests[0]);
  const manifest = await json(
    manifests.find(({ platform }: { platform: { architecture: string } }) => platform.architecture === architecture),
  );
  const configuration: ImageConfiguration = await json(manifest.config);
  await mkdir(root);
  for (const [number, layer] of manifest.layers.entries()) {
    const tar = Bun.gunzipSync(new Uint8Array(await blob(layer)));
    if (digestOf(tar) !== configuration.rootfs.diff_ids[number]) throw new Error(`Cannot unpack layer ${layer.digest}`);
    const extraction = spawn('tar', ['-x', '-p', '-C', root], { stdio: ['pipe', 'ignore', 'inherit'] });
    extraction.stdin?.end(tar);
    const [code] = await once(extraction, 'close');
    if (code !== 0) throw new Error(`Cannot unpack layer ${layer.digest}: tar ended with ${code}`);
  }
  return configuration;
}

function digestOf(content: Uint8Array): string {
  return `sha256:${new Bun.CryptoHasher('sha256').update(content).digest('hex')}`;
}

/** A running container; disposal kills it. */
export interface Container extends AsyncDisposable {
  /** Process id of the entry point, as seen outside the container */
  readonly pid: number;
  readonly stderr: string;
  /** Complete lines of stderr that are JSON */
  readonly lines: readonly BinaryLogLine[];
  waitForLine(what: string, isIt: (line: BinaryLogLine) => boolean): Promise<BinaryLogLine>;
  /** Sends SIGTERM and resolves with how the process ended */
  stop(): Promise<Ending>;
}

/** Runs a program in a root file system and returns its output. */
export async function runInRoot(root: string, ...command: readonly string[]): Promise<string> {
  const namespaces = IS_ROOT ? [] : ['--user', '--map-root-user'];
  return await runProgram('unshare', [...namespaces, `--root=${root}`, '--wd=/', ...command], { env: {} });
}

/** Shell script: mounts /proc of the new PID namespace, then executes the program in the given root and identity. */
const ENTER = `root=$1 identity=$2; shift 2
mount -t proc proc "$root/proc" && exec unshare --root="$root" --wd=/ $identity "$@"`;

/** Starts the entry point of an unpacked image; PATH and `env` are its whole environment. */
export async function startContainer(
  root: string,
  { config }: ImageConfiguration,
  env: Readonly<Record<string, string>> = {},
): Promise<Container> {
  const [uid, gid] = config.User.split(':');
  const [namespaces, identity] = IS_ROOT
    ? [[], `--setuid=${uid} --setgid=${gid}`]
    : [['--user', '--map-root-user'], `--user --map-user=${uid} --map-group=${gid}`];
  const isolation = [...namespaces, '--mount', '--pid', '--fork', '--kill-child'];
  const command = [...config.Entrypoint, ...config.Cmd];
  const child = spawn('unshare', [...isolation, '/bin/sh', '-c', ENTER, 'enter', root, identity, ...command], {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
  });
  await once(child, 'spawn');
  const outer = child.pid as number;
  guardProcess(outer, 'KILL');
  const ended = endOf(child).finally(() => releaseProcess(outer));
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const lines = () =>
    stderr
      .split('\n')
      .flatMap((line, index, all) => (line.startsWith('{') && index < all.length - 1 ? [JSON.parse(line)] : []));
  const seen = <T>(what: string, condition: () => T) =>
    waitFor(what, () => {
      const found = condition();
      if (!found && child.exitCode !== null) {
        throw new Error(
          `Cannot see ${what}: unshare exited with ${child.exitCode} (it needs root, or user namespaces): ${stderr}`,
        );
      }
      return found;
    }).catch((error: unknown) => {
      throw new Error(`${error instanceof Error ? error.message : error}; last lines: ${stderr.slice(-2000)}`);
    });
  const program = config.Entrypoint[0]!;
  const pid = await seen('the entry point', () => childrenOf(outer).find((id) => commandOf(id) === program));
  return {
    pid,
    get stderr() {
      return stderr;
    },
    get lines() {
      return lines();
    },
    waitForLine: (what, isIt) => seen(what, () => lines().find(isIt)),
    async stop() {
      process.kill(pid, 'SIGTERM');
      return await ended;
    },
    async [Symbol.asyncDispose]() {
      // The kernel kills all processes of a PID namespace with its PID 1.
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      await ended;
    },
  };
}

async function endOf(child: ChildProcess): Promise<Ending> {
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return signal ?? (code as number);
}

/** Process ids of the children of all threads of a process, zombies among them. */
export function childrenOf(pid: number): number[] {
  const threads = `/proc/${pid}/task`;
  if (!existsSync(threads)) return [];
  const files = [...new Bun.Glob('*/children').scanSync({ cwd: threads, absolute: true })];
  return files.flatMap((file) => readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number));
}

function commandOf(pid: number): string | undefined {
  const file = `/proc/${pid}/cmdline`;
  return existsSync(file) ? readFileSync(file, 'utf8').split('\0')[0] : undefined;
}

/** An empty directory for root file systems, which other users may enter. */
export async function rootDirectory(): Promise<TemporaryDirectory> {
  const directory = await temporaryDirectory('root');
  await runProgram('chmod', ['755', directory.path]);
  return directory;
}
