/** The program: arguments in, exit code out. `runService` does the rest. */
import packageJson from '../package.json' with { type: 'json' };
import { HELP_TEXT, parseArguments } from './cli.ts';
import type { Config } from './config/config.ts';
import { ConfigError } from './config/config-error.ts';
import { loadConfig } from './config/load.ts';
import { referenceText } from './config/reference.ts';
import { NotifierError } from './errors.ts';
import { createLogger, type Logger } from './log.ts';
import { loadSysConfig } from './sys-config/import.ts';

/** As documented in --help. */
const EXIT = { success: 0, failure: 1, mistake: 2, openQuestions: 3 } as const;

const SIGNAL_NUMBERS = { SIGINT: 2, SIGTERM: 15 } as const;

async function main(): Promise<number> {
  const command = parseArguments(process.argv.slice(2));
  switch (command.command) {
    case 'help':
      await write(process.stdout, HELP_TEXT);
      return EXIT.success;
    case 'reference':
      await write(process.stdout, referenceText());
      return EXIT.success;
    case 'version':
      await write(process.stdout, `cdc-notifier ${packageJson.version}\n`);
      return EXIT.success;
    case 'usage-error':
      await write(process.stderr, `${command.message}\nTry cdc-notifier --help\n`);
      return EXIT.mistake;
    case 'check': {
      const config = orPrintMistakes(() => loadConfig(command.configPath));
      if (config === undefined) return EXIT.mistake;
      await write(process.stderr, config.warnings.map((warning) => `warning: ${warning}\n`).join(''));
      await write(process.stdout, `${command.configPath}: OK\n`);
      return EXIT.success;
    }
    case 'import': {
      const imported = orPrintMistakes(() => loadSysConfig(command.configPath));
      if (imported === undefined) return EXIT.mistake;
      await write(process.stdout, imported.yaml);
      await write(process.stderr, imported.report.map((line) => `${line}\n`).join(''));
      return imported.isComplete ? EXIT.success : EXIT.openQuestions;
    }
    case 'run': {
      const config = orPrintMistakes(() => loadConfig(command.configPath));
      return config === undefined ? EXIT.mistake : await run(config);
    }
  }
}

async function run(config: Config): Promise<number> {
  const log = createLogger(config.log);
  exitOnBug(log);
  const stopSignal = stopOnSignal(log);
  log.info(
    { event: 'service_started', version: packageJson.version, slotCount: config.streams.length },
    'cdc-notifier started',
  );
  for (const warning of config.warnings) log.warn({ event: 'configuration_warning' }, warning);
  // Imported only here: loading the Kafka library alone takes longer than --help, --version and --check together.
  const { runService } = await import('./service.ts');
  try {
    await runService(config, { version: packageJson.version, log }, stopSignal);
  } catch (error) {
    if (!(error instanceof NotifierError)) throw error;
    log.fatal({ event: 'service_failed', error }, 'cdc-notifier cannot run');
    return EXIT.failure;
  }
  log.info({ event: 'service_stopped' }, 'cdc-notifier stopped');
  return EXIT.success;
}

/** Returns what `load` returns; on mistakes prints them all and returns undefined. */
function orPrintMistakes<Loaded>(load: () => Loaded): Loaded | undefined {
  try {
    return load();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return undefined;
  }
}

/** Resolves when the text is written: text that a pipe has not accepted is lost when the process exits. */
function write(stream: NodeJS.WriteStream, text: string): Promise<void> {
  return new Promise((resolve) => stream.write(text, () => resolve()));
}

/** The first SIGTERM or SIGINT requests a graceful stop, a second one exits at once. */
function stopOnSignal(log: Logger): AbortSignal {
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) process.exit(128 + SIGNAL_NUMBERS[signal]);
      log.info({ event: 'stopping', signal }, 'stopping');
      stop.abort();
    });
  }
  return stop.signal;
}

/** After an unexpected error the state of the process is unknown. Nothing is lost: PostgreSQL keeps what is not confirmed. */
function exitOnBug(log: Logger): void {
  const end = (error: unknown) => {
    log.fatal({ event: 'unexpected_error', error }, 'unexpected error');
    process.exit(EXIT.failure);
  };
  process.on('uncaughtException', end);
  process.on('unhandledRejection', end);
}

main().then(
  (exitCode) => process.exit(exitCode),
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(EXIT.failure);
  },
);
