import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PROJECT_DIRECTORY } from '../process/directories.ts';
import { guardProcess, releaseProcess } from '../process/guardian.ts';
import { temporaryDirectory } from '../process/temporary-directory.ts';
import { type InProcessService, type ServiceOptions, serviceConfig } from './in-process.ts';

/** The service in a process of its own, for signals. */
export interface ServiceProcess extends AsyncDisposable {
  signal(signal: NodeJS.Signals): void;
  /** SIGKILL */
  kill(): Promise<void>;
  readonly log: InProcessService['log'];
}

/** Starts it from its sources; disposal kills it. */
export async function startServiceProcess(options: ServiceOptions): Promise<ServiceProcess> {
  await using undo = new AsyncDisposableStack();
  const directory = undo.use(await temporaryDirectory('service'));
  const configFile = join(directory.path, 'config.yaml');
  await writeFile(configFile, serviceConfig(options));
  const program = join(PROJECT_DIRECTORY, 'src', 'main.ts');
  const child = spawn(process.execPath, [program, configFile], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exit = once(child, 'close');
  guardProcess(child.pid!, 'KILL');
  child.once('exit', () => releaseProcess(child.pid!));
  const log: InProcessService['log'][number][] = [];
  let rest = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    log.push(...lines.map((line) => JSON.parse(line)));
  });
  const kill = async () => {
    child.kill('SIGKILL');
    await exit;
  };
  undo.defer(kill);
  const resources = undo.move();
  return {
    log,
    signal: (signal) => void child.kill(signal),
    kill,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}
