/** The command line: what is asked for, and what `--help` says. Nothing here reads files or exits. */

import { parseArgs } from 'node:util';

/** What a command line asks for. */
export type Command =
  | { readonly command: 'run'; readonly configPath: string }
  | { readonly command: 'check'; readonly configPath: string }
  /** `configPath` is the sys.config of the Erlang service */
  | { readonly command: 'import'; readonly configPath: string }
  | { readonly command: 'help' }
  | { readonly command: 'version' }
  /** `message` says what is wrong with the command line, in one line */
  | { readonly command: 'usage-error'; readonly message: string };

/** Text of `--help`. */
export const HELP_TEXT = `Usage: cdc-notifier CONFIG.yaml
       cdc-notifier --check CONFIG.yaml
       cdc-notifier --import SYS.CONFIG > CONFIG.yaml
       cdc-notifier --help | --version

Follows progressor's tables through PostgreSQL logical replication and delivers
their events and status changes to Kafka, at least once, in order for each
process. Runs until it is told to stop.

Options:
  --check        check the configuration, print every mistake, and exit; the
                 secrets and certificates that it names are read, nothing is
                 connected to
  --import       print our configuration made from the sys.config of the Erlang
                 service, and exit; what has to be looked at stands in comments
                 at its top and on stderr. Secrets are not copied: environment
                 variables stand in their place
  -h, --help     print this text and exit
  -V, --version  print the version and exit

Signals:
  SIGTERM, SIGINT  take no more changes, wait at most shutdown_timeout for what
                   is in flight, confirm what Kafka acknowledged, and exit
                   with 0; what was not confirmed is sent again next time
  a second one     exit at once

Exit codes:
  0  stopped by a signal; with --check: the configuration is correct; with
     --import: everything was carried over
  1  failed
  2  a mistake in the command line or in the configuration; nothing was
     connected to
  3  with --import: printed, but something has to be looked at

Logs go to stderr: JSON lines, or text when stderr is a terminal. Failures of
PostgreSQL or Kafka never end the service: the slot that is concerned logs the
reason and what can be done, and tries again every reconnect_timeout.

Configuration: one YAML (or JSON) file. The least that it needs:

  databases:
    progressor_db:                          # a name of your choice
      host: postgres
      database: progressor
      username: progressor
      password: {file: /run/secrets/pg}     # or text, or {env: NAME}
  kafka_clients:
    main:                                   # a name of your choice
      brokers: [kafka1:9092, kafka2:9092]
  streams:
    progressor_db:                          # an entry of databases
      cdc_slot_default:                     # replication slot (made if missing)
        default/default:                    # namespace of progressor
          kafka_client: main                # an entry of kafka_clients
          eventsink_topic: eventsink        # both topics must exist
          lifecycle_topic: lifecycle

Further keys and their defaults: tls (none) of a database or Kafka client; port
(5432) of a database, or hosts: [a:5432, b:5432] in place of host, of which the
writable one is followed; sasl (none), client_id (cdc-notifier), compression
(none), connect_timeout (5000), request_timeout (30000), metadata_max_age
(10000) of a Kafka client; replica_identity (full), publish_columns (all),
on_missing_old_tuple (stop), on_invalid (stop), parking_topic (none; for
on_invalid: park) of a namespace; failover (false) and accept_loss_after (none)
of a slot, in slots: {DB_REF: {SLOT: {...}}}; at the top resend_timeout (3000),
max_retries (3), reconnect_timeout (5000), shutdown_timeout (20000), http (none;
{host, port (8022), in_flight_limit (30000)} listens on 127.0.0.1 for /live,
/ready, /status and /metrics) and log ({level: info, format: auto}). Times are
in milliseconds.
config/cdc-notifier.example.yaml shows every key with a comment; the README has
the reference.
`;

/** Reads the arguments that follow the program's name. Never throws: a mistake is a command of its own. */
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
  const [configPath, ...others] = positionals;
  if (configPath === undefined || configPath === '') return usageError('The configuration file is missing');
  if (others.length > 0) return usageError(`One configuration file is expected, not ${positionals.length}`);
  if (values.check === true && values.import === true) return usageError('--check and --import exclude each other');
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
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean', short: 'V' },
    },
  });
}

function usageError(message: string): Command {
  return { command: 'usage-error', message };
}

/** The rest of node's message is about positional arguments that begin with a dash. */
function firstSentence(message: string): string {
  return message.split('. ')[0] ?? message;
}
