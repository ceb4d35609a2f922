/** The program: arguments in, exit code out. Everything between is `runService`. */
import packageJson from '../package.json' with { type: 'json' };
import { HELP_TEXT, parseArguments } from './cli.ts';
import type { Config } from './config/config.ts';
import { ConfigError } from './config/config-error.ts';
import { loadConfig } from './config/load.ts';
import { NotifierError } from './errors.ts';
import { createLogger, type Logger } from './log.ts';
import { loadSysConfig } from './sys-config/import.ts';

/** As --help tells. */
const EXIT = { stopped: 0, failed: 1, mistake: 2, incomplete: 3 } as const;

const SIGNAL_NUMBERS = { SIGINT: 2, SIGTERM: 15 } as const;

async function main(): Promise<number> {
  const command = parseArguments(process.argv.slice(2));
  switch (command.command) {
    case 'help':
      process.stdout.write(HELP_TEXT);
      return EXIT.stopped;
    case 'version':
      process.stdout.write(`cdc-notifier ${packageJson.version}\n`);
      return EXIT.stopped;
    case 'usage-error':
      process.stderr.write(`${command.message}\nTry cdc-notifier --help\n`);
      return EXIT.mistake;
    case 'check':
      if (orMistakes(() => loadConfig(command.configPath)) === undefined) return EXIT.mistake;
      process.stdout.write(`${command.configPath}: correct\n`);
      return EXIT.stopped;
    case 'import': {
      const imported = orMistakes(() => loadSysConfig(command.configPath));
      if (imported === undefined) return EXIT.mistake;
      await written(process.stdout, imported.yaml);
      await written(process.stderr, imported.report.map((line) => `${line}\n`).join(''));
      return imported.isComplete ? EXIT.stopped : EXIT.incomplete;
    }
    case 'run': {
      const config = orMistakes(() => loadConfig(command.configPath));
      return config === undefined ? EXIT.mistake : await run(config);
    }
  }
}

async function run(config: Config): Promise<number> {
  const log = createLogger(config.log);
  endOnBug(log);
  const stopSignal = stopOnSignal(log);
  log.info({ version: packageJson.version, slotCount: config.streams.length }, 'cdc-notifier started');
  // Loaded here: the Kafka library alone takes longer than all of --help, --version and --check.
  const { runService } = await import('./service.ts');
  try {
    await runService(config, { version: packageJson.version, log }, stopSignal);
  } catch (error) {
    if (!(error instanceof NotifierError)) throw error;
    log.fatal({ error }, 'cdc-notifier cannot run');
    return EXIT.failed;
  }
  log.info('cdc-notifier stopped');
  return EXIT.stopped;
}

/** Prints every mistake; undefined when there is one. */
function orMistakes<Loaded>(load: () => Loaded): Loaded | undefined {
  try {
    return load();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return undefined;
  }
}

/** Resolves when a text has left: what a pipe has not taken is lost when the process exits. */
function written(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => stream.write(text, () => resolve()));
}

/** The first SIGTERM or SIGINT asks for a stop in good order, a second one gets one at once. */
function stopOnSignal(log: Logger): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) process.exit(128 + SIGNAL_NUMBERS[signal]);
      log.info({ signal }, 'stopping');
      stop.abort();
    });
  }
  return stop.signal;
}

/** An error that nobody expected leaves the process in an unknown state: PostgreSQL keeps what was not confirmed. */
function endOnBug(log: Logger): void {
  const end = (error: unknown) => {
    log.fatal({ error }, 'unexpected error');
    process.exit(EXIT.failed);
  };
  process.on('uncaughtException', end);
  process.on('unhandledRejection', end);
}

main().then(
  (exitCode) => process.exit(exitCode),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(EXIT.failed);
  },
);
