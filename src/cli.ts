/** The command line: its arguments, and the text of `--help`. Reads no files and never exits. */

import { parseArgs } from 'node:util';

/** What a command line requests. */
export type Command =
  | { readonly command: 'run'; readonly configPath: string }
  | { readonly command: 'check'; readonly configPath: string }
  /** `configPath` is a sys.config of the Erlang service */
  | { readonly command: 'import'; readonly configPath: string }
  | { readonly command: 'reference' }
  | { readonly command: 'help' }
  | { readonly command: 'version' }
  /** `message` describes the mistake in one line */
  | { readonly command: 'usage-error'; readonly message: string };

/** Text of `--help`. Its configuration is config/minimal.yaml. */
export const HELP_TEXT = `Usage: cdc-notifier CONFIG.yaml
       cdc-notifier --check CONFIG.yaml
       cdc-notifier --import SYS.CONFIG > CONFIG.yaml
       cdc-notifier --reference | --help | --version

Follows progressor's tables through PostgreSQL logical replication and delivers
their events and status changes to Kafka, at least once, in order for each
process. Runs until it receives SIGTERM or SIGINT.

Options:
  --check        check the configuration, print every mistake, and exit; reads
                 the secrets and certificates that it names, connects to nothing
  --import       convert an Erlang sys.config to YAML and exit; open questions
                 are listed at the top of the output and on stderr. Secrets are
                 not copied: environment variables take their place
  --reference    print every key of the configuration and exit
  -h, --help     print this text and exit
  -V, --version  print the version and exit

Signals:
  SIGTERM, SIGINT  stop reading, wait until Kafka has acknowledged what is in
                   flight, confirm that position to PostgreSQL, and exit with
                   0, all within shutdown_timeout; changes that are not
                   confirmed are sent again at the next start
  a second signal  exit at once, with 143 (SIGTERM) or 130 (SIGINT)

Exit codes:
  0  stopped by a signal; with --check: the configuration is correct; with
     --import: everything was converted
  1  failure: http.port is in use, or a bug in the program
  2  mistake in the command line or in the configuration; nothing was
     connected to
  3  with --import: converted, with open questions

Logs go to stderr: JSON lines, or text when stderr is a terminal. Failures of
PostgreSQL or Kafka never end the service: the affected slot logs the reason and
the remedy, and tries again every reconnect_timeout.

Minimal configuration (YAML or JSON):

  databases:
    progressor_db:                  # a name of your choice
      host: postgres.example.org
      database: progressor_db
      username: cdc_notifier        # LOGIN REPLICATION, owns nothing
      password: {file: /run/secrets/postgres-password}  # or {env: NAME}
      tls: {}                       # verifies certificate and host name
  kafka_clients:
    main:                           # a name of your choice
      brokers: [kafka1.example.org:9092, kafka2.example.org:9092]
      tls: {}
  streams:
    progressor_db:                  # an entry of databases
      cdc_slot_default:             # replication slot, created if missing
        default/default:            # namespace of progressor
          kafka_client: main        # an entry of kafka_clients
          eventsink_topic: default_eventsink    # topics must exist
          lifecycle_topic: default_lifecycle
  http: {}                          # /live, /ready, /health, /status, /metrics

Full reference: config/cdc-notifier.example.yaml
Table of all keys: cdc-notifier --reference
`;

/** Parses the arguments after the program's name. Never throws: a mistake is a command of its own. */
export function parseArguments(args: readonly string[]): Command {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(args);
  } catch (error) {
    return usageError(error instanceof Error ? firstSentence(error.message) : 'Malformed command line');
  }
  const { values, positionals } = parsed;
  if (values.help === true) return { command: 'help' };
  if (values.version === true) return { command: 'version' };
  if (values.reference === true) return { command: 'reference' };
  const [configPath, ...others] = positionals;
  if (configPath === undefined || configPath === '') return usageError('The configuration file is missing');
  if (others.length > 0) return usageError(`Expected one configuration file, got ${positionals.length}`);
  if (values.check === true && values.import === true) return usageError('--check and --import cannot be combined');
  if (values.import === true) return { command: 'import', configPath };
  return { command: values.check === true ? 'check' : 'run', configPath };
}

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      check: { type: 'boolean' },
      import: { type: 'boolean' },
      reference: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean', short: 'V' },
    },
  });
}

function usageError(message: string): Command {
  return { command: 'usage-error', message };
}

/** The rest of Node's message is about positional arguments that begin with a dash. */
function firstSentence(message: string): string {
  return message.split('. ')[0] ?? message;
}
