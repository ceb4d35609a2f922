/** The compiled program at the command line, alone in a directory: stdout, stderr and exit code. */
import { describe, expect, test } from 'bun:test';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import packageJson from '../../package.json' with { type: 'json' };
import { HELP_TEXT } from '../../src/cli.ts';
import { referenceText } from '../../src/config/reference.ts';
import { CONFIG_FILE, runBinary } from '../support/service/binary.ts';

const EXAMPLE = join(import.meta.dirname, '../../config/cdc-notifier.example.yaml');

const SECRET = 'pg-Secret-7f3a';

const SYS_CONFIGS = join(import.meta.dirname, '../fixtures/sys-config');

/** A correct configuration whose only database and broker are at `port`. */
function config(port = 1): string {
  return `databases:
  db: {host: 127.0.0.1, port: ${port}, database: d, username: u, password: ${SECRET}}
kafka_clients:
  main: {brokers: ['127.0.0.1:${port}']}
streams:
  db:
    slot:
      invoice: {kafka_client: main, eventsink_topic: e, lifecycle_topic: l}
`;
}

/** Counts connections. */
async function listen(): Promise<{ readonly port: number; readonly connectionCount: () => number } & Disposable> {
  let connectionCount = 0;
  const listener: Server = createServer((socket) => {
    connectionCount++;
    socket.destroy();
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as { port: number };
  return { port, connectionCount: () => connectionCount, [Symbol.dispose]: () => listener.close() };
}

describe('cdc-notifier at the command line', () => {
  test.each([[['--help']], [['-h', 'nowhere.yaml']]])('%j prints the help and exits 0', async (args) => {
    expect(await runBinary(args)).toEqual({ ending: 0, stdout: HELP_TEXT, stderr: '' });
  });

  test('--reference prints every key and exits 0', async () => {
    expect(await runBinary(['--reference'])).toEqual({ ending: 0, stdout: referenceText(), stderr: '' });
  });

  test.each([['--version'], ['-V']])('%s prints the version and exits 0', async (argument) => {
    const stdout = `cdc-notifier ${packageJson.version}\n`;
    expect(await runBinary([argument])).toEqual({ ending: 0, stdout, stderr: '' });
  });

  test.each([
    [['--chek', CONFIG_FILE], "Unknown option '--chek'"],
    [[], 'The configuration file is missing'],
    [['--check'], 'The configuration file is missing'],
    [[CONFIG_FILE, 'another.yaml'], 'Expected one configuration file, got 2'],
  ])('%j exits 2 with a message', async (args, message) => {
    const stderr = `${message}\nTry cdc-notifier --help\n`;
    expect(await runBinary(args, { [CONFIG_FILE]: config() })).toEqual({ ending: 2, stdout: '', stderr });
  });

  test('--check of a correct file exits 0 and connects to nothing', async () => {
    using listener = await listen();
    const result = await runBinary(['--check', CONFIG_FILE], { [CONFIG_FILE]: config(listener.port) });
    expect(result).toEqual({ ending: 0, stdout: 'config.yaml: OK\n', stderr: '' });
    expect(listener.connectionCount()).toBe(0);
  });

  test('the example file lacks nothing but the secrets that it names', async () => {
    const text = await readFile(EXAMPLE, 'utf8');
    const { ending, stdout, stderr } = await runBinary(['--check', CONFIG_FILE], { [CONFIG_FILE]: text });
    expect([ending, stdout]).toEqual([2, '']);
    const mistakes = stderr.trimEnd().split('\n');
    expect(mistakes).toEqual([
      expect.stringContaining('environment variable PROGRESSOR_DB_PASSWORD is not set'),
      expect.stringContaining('environment variable KAFKA_PASSWORD is not set'),
    ]);
  });

  const MISTAKEN = `databases:
  db: {host: 127.0.0.1, port: PORT, database: d, username: u, pasword: ${SECRET}}
  db: {host: 127.0.0.1, database: d, username: u, password: ${SECRET}}
kafka_clients:
  main: {brokers: ['127.0.0.1:PORT'], sasl: {mechanism: SCRAM-SHA-1, username: u, password: {file: missing}}}
streams:
  db:
    Slot:
      invoice: {kafka_client: man, eventsink_topic: e, lifecycle_topic: ''}
max_retries: three
`;

  test.each([[['--check', CONFIG_FILE]], [[CONFIG_FILE]]])(
    '%j of a file with mistakes exits 2 with every mistake and its place, before any connection',
    async (args) => {
      using listener = await listen();
      const text = MISTAKEN.replaceAll('PORT', String(listener.port));
      const { ending, stdout, stderr } = await runBinary(args, { [CONFIG_FILE]: text });
      expect([ending, stdout, listener.connectionCount()]).toEqual([2, '', 0]);
      const mistakes = stderr.trimEnd().split('\n');
      const places = mistakes.map((line) => /^config\.yaml:(\d+):\d+: ([^:]+): ./.exec(line)?.slice(1).join(' '));
      expect(places).toEqual([
        '2 databases.db.password',
        '2 databases.db.pasword',
        '3 databases.db',
        '5 kafka_clients.main.sasl.mechanism',
        '5 kafka_clients.main.sasl.password',
        '8 streams.db.Slot',
        '9 streams.db.Slot.invoice.kafka_client',
        '9 streams.db.Slot.invoice.lifecycle_topic',
        '10 max_retries',
      ]);
      // The closest known name
      expect(mistakes[1]).toContain('password');
      expect(stderr).not.toContain(SECRET);
    },
  );

  test('a missing file, or one that is not YAML, is a mistake like any other', async () => {
    expect(await runBinary(['nowhere.yaml'])).toEqual({
      ending: 2,
      stdout: '',
      stderr: 'nowhere.yaml:1:1: cannot be read (ENOENT)\n',
    });
    const { ending, stderr } = await runBinary([CONFIG_FILE], { [CONFIG_FILE]: `a: {${SECRET}` });
    expect(ending).toBe(2);
    expect(stderr).toStartWith('config.yaml:1:');
    expect(stderr).not.toContain(SECRET);
  });

  test('--import prints only a configuration on stdout, which --check accepts', async () => {
    const text = await readFile(join(SYS_CONFIGS, 'complete.config'), 'utf8');
    const imported = await runBinary(['--import', 'sys.config'], { 'sys.config': text });
    expect(imported).toMatchObject({ ending: 0, stdout: await readFile(join(SYS_CONFIGS, 'complete.yaml'), 'utf8') });
    expect(imported.stderr).toContain('  EXAMPLE_DB_PASSWORD: databases.example_db.password\n');
    const checked = await runBinary(['--check', CONFIG_FILE], { [CONFIG_FILE]: imported.stdout });
    expect(checked).toMatchObject({ ending: 2, stdout: '' });
    expect(checked.stderr).toMatch(
      /^\S+ databases\.example_db\.password: environment variable EXAMPLE_DB_PASSWORD is not set\n$/,
    );
  });

  test('--import exits 3 with open questions, and 2 when the file cannot be read', async () => {
    const text = await readFile(join(SYS_CONFIGS, 'awkward.config'), 'utf8');
    const imported = await runBinary(['--import', 'sys.config'], { 'sys.config': text });
    expect(imported).toMatchObject({ ending: 3, stdout: await readFile(join(SYS_CONFIGS, 'awkward.yaml'), 'utf8') });
    expect(imported.stderr).toContain('sys.config:29:22: epg_connector.statistics: is unknown and was dropped\n');
    const broken = await runBinary(['--import', 'sys.config'], { 'sys.config': `[{brod, "${SECRET}]` });
    expect(broken).toEqual({
      ending: 2,
      stdout: '',
      stderr: 'sys.config:1:9: the end of a string that begins here is missing\n',
    });
  });

  test('--import prints more than a pipe buffer holds', async () => {
    const namespace = '#{kafka_client => k, eventsink_topic => <<"e">>, lifecycle_topic => <<"l">>}';
    const namespaces = Array.from({ length: 3000 }, (_, index) => `ns${index} => ${namespace}`).join(', ');
    const text = `[{cdc_progressor, [{streams, #{db => #{"slot" => #{${namespaces}}}}}]}].`;
    const { ending, stdout } = await runBinary(['--import', 'sys.config'], { 'sys.config': text });
    expect(ending).toBe(3);
    expect(stdout.length).toBeGreaterThan(200_000);
    expect(stdout).toEndWith("\n# http: {host: '::'}\n");
  });

  test('ignores files of its runtime in the working directory', async () => {
    const files = {
      [CONFIG_FILE]: config().replace(`password: ${SECRET}`, 'password: {env: PG_PASSWORD}'),
      '.env': 'PG_PASSWORD=from-a-file-that-was-not-named\n',
      'bunfig.toml': 'preload = ["./preload.ts"]\n',
      'preload.ts': 'process.stdout.write("preloaded\\n");\n',
      'tsconfig.json': '{',
      'package.json': '{',
    };
    const { ending, stdout, stderr } = await runBinary(['--check', CONFIG_FILE], files);
    expect([ending, stdout]).toEqual([2, '']);
    expect(stderr).toContain('environment variable PG_PASSWORD is not set');
  });
});
