/** The image: its contents, and that it runs as an engine would run it, using only its own files. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { appendFile, chown, cp, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import packageJson from '../../package.json' with { type: 'json' };
import { fetchPackages, SupersededError } from '../../src/build/image/debian.ts';
import { type KafkaServer, startKafka } from '../support/kafka/server.ts';
import { freePort } from '../support/network/ports.ts';
import type { PostgresServer } from '../support/postgres/server.ts';
import { PROJECT_DIRECTORY } from '../support/process/directories.ts';
import { runProgram } from '../support/process/run-program.ts';
import type { TemporaryDirectory } from '../support/process/temporary-directory.ts';
import { waitFor } from '../support/process/wait.ts';
import { STARTED } from '../support/service/binary.ts';
import {
  type BinaryFixture,
  isFailure,
  KAFKA_PASSWORD,
  openBinaryFixture,
  PASSWORD,
  startServer,
} from '../support/service/binary-fixture.ts';
import {
  ARCHITECTURE,
  type Container,
  childrenOf,
  type ImageConfiguration,
  IS_ROOT,
  OTHER_ARCHITECTURE,
  rootDirectory,
  runInRoot,
  startContainer,
  unpackImage,
} from './container.ts';
import { copyProject, type ProjectCopy } from './copy.ts';
import { fetchEmulator } from './emulator.ts';
import { startNameServer } from './name-server.ts';

const NONROOT = 65532;
const CERTIFICATES = join(import.meta.dirname, '../fixtures/tls');
const KAFKA_USER = 'notifier';

/** Paths in the image. */
const AUTHORITIES = 'etc/ssl/certs/ca-certificates.crt';
const CONFIGURATION = 'etc/cdc-notifier';

/** The /etc/hosts that engines write. */
const HOSTS = { 'etc/hosts': '127.0.0.1 localhost\n' };

/** A valid configuration. */
const MINIMAL = {
  databases: { db: { host: 'localhost', database: 'd', username: 'u', password: 'p' } },
  kafka_clients: { main: { brokers: ['localhost:9092'] } },
  streams: { db: { slot: { ns: { kafka_client: 'main', eventsink_topic: 'e', lifecycle_topic: 'l' } } } },
};

let directory: TemporaryDirectory;
/** Files of the images that two copies of the project built */
let images: string[];
let pristine: string;
let configuration: ImageConfiguration;

beforeAll(async () => {
  directory = await rootDirectory();
  const copies = await copyProject(directory.path);
  await providePackages(copies);
  images = copies.map((copy) => join(copy.directory, 'image.tar'));
  await Promise.all(copies.map((copy, number) => copy.run('image/image', images[number]!)));
  pristine = join(directory.path, 'pristine');
  configuration = await unpackImage(images[0]!, pristine);
}, 240_000);

afterAll(() => directory?.[Symbol.asyncDispose]());

/** Downloads the Debian packages before both copies need them; in the copies, superseded versions are replaced. */
async function providePackages(copies: readonly ProjectCopy[]): Promise<void> {
  try {
    for (const architecture of [ARCHITECTURE, OTHER_ARCHITECTURE]) await fetchPackages(architecture);
  } catch (error) {
    if (!(error instanceof SupersededError)) throw error;
    // The archive moving on is no defect of this project; releasing superseded packages would be, so `make image` refuses.
    console.warn(`${error.message}\nThe newest packages are tested instead.`);
    await copies[0]!.run('image/pin-debian');
    const [pins, ...others] = copies.map((copy) => join(copy.directory, 'src/build/image/debian-packages.json'));
    for (const other of others) await cp(pins!, other);
  }
}

let roots = 0;

/** Copies the root file system and adds what an engine mounts: the configuration and its secrets. */
async function containerRoot(config: object, files: Readonly<Record<string, string>> = {}): Promise<string> {
  roots++;
  const root = join(directory.path, `root-${roots}`);
  await cp(pristine, root, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true });
  for (const [name, text] of Object.entries({ postgres: PASSWORD, kafka: KAFKA_PASSWORD })) {
    const path = join(root, CONFIGURATION, name);
    await writeFile(path, text, { mode: 0o400 });
    if (IS_ROOT) await chown(path, NONROOT, NONROOT);
  }
  await writeFile(join(root, CONFIGURATION, 'config.yaml'), JSON.stringify(config));
  await writeFile(join(root, CONFIGURATION, 'kafka-ca.crt'), await authority());
  for (const [path, text] of Object.entries(files)) await writeFile(join(root, path), text);
  return root;
}

/** The CA certificate that signed the certificates of both servers. */
function authority(): Promise<string> {
  return readFile(join(CERTIFICATES, 'ca.crt'), 'utf8');
}

function statusOf({ pid }: Container): Promise<string> {
  return readFile(`/proc/${pid}/status`, 'utf8');
}

describe('the image', () => {
  test('has the labels and the command of the service', () => {
    expect(configuration).toMatchObject({
      architecture: ARCHITECTURE,
      config: {
        User: `${NONROOT}:${NONROOT}`,
        Entrypoint: ['/usr/bin/cdc-notifier'],
        Cmd: ['/etc/cdc-notifier/config.yaml'],
        Labels: { 'org.opencontainers.image.title': 'cdc-notifier', 'org.opencontainers.image.licenses': 'Apache-2.0' },
      },
    });
  });

  test('has the same run configuration as the image of the Dockerfile', async () => {
    const dockerfile = await readFile(join(PROJECT_DIRECTORY, 'src/build/image/Dockerfile'), 'utf8');
    const instruction = (name: string) => new RegExp(`^${name} (.+)$`, 'm').exec(dockerfile)?.[1] as string;
    expect(configuration.config).toMatchObject({
      User: instruction('USER'),
      WorkingDir: instruction('WORKDIR'),
      Entrypoint: JSON.parse(instruction('ENTRYPOINT')),
      Cmd: JSON.parse(instruction('CMD')),
      ExposedPorts: { [`${instruction('EXPOSE')}/tcp`]: {} },
    });
  });

  test('contains one program, no set-uid file, and nothing that its user may write', async () => {
    const list = async (...conditions: string[]) =>
      (await runProgram('find', [pristine, '-type', 'f', ...conditions, '-printf', '%P\n'])).trim().split('\n').sort();
    const library =
      ARCHITECTURE === 'arm64' ? 'aarch64-linux-gnu/ld-linux-aarch64.so.1' : 'x86_64-linux-gnu/ld-linux-x86-64.so.2';
    expect((await list('-perm', '/111')).filter((path) => !/\/lib\w+\.so\.\d+$/.test(path))).toEqual([
      'usr/bin/cdc-notifier',
      `usr/lib/${library}`,
    ]);
    expect(await list('-perm', '/7022')).toEqual(['']);
  });

  test('contains its licenses, and an SBOM of the program and the Debian packages', async () => {
    const documents = join(pristine, 'usr/share/doc/cdc-notifier');
    expect(await readFile(join(documents, 'LICENSES.txt'), 'utf8')).toContain('@platformatic/kafka');
    const { components } = JSON.parse(await readFile(join(documents, 'sbom.cdx.json'), 'utf8'));
    const names = components.map(({ name }: { name: string }) => name);
    expect(names).toEqual(expect.arrayContaining(['bun', 'libc6', 'postgres', 'tzdata']));
  });

  test('has the same bytes wherever it is built', async () => {
    await runProgram('cmp', images);
  });

  test('runs on the other architecture, in an emulator', async () => {
    const root = join(directory.path, 'other');
    const { config } = await unpackImage(images[0]!, root, OTHER_ARCHITECTURE);
    const [program, file] = [...config.Entrypoint, ...config.Cmd] as [string, string];
    await cp(await fetchEmulator(OTHER_ARCHITECTURE), join(root, 'emulator'));
    await writeFile(join(root, file), JSON.stringify(MINIMAL));
    const commands = [['--version'], ['--check', file]];
    const outputs = await Promise.all(commands.map((args) => runInRoot(root, '/emulator', program, ...args)));
    expect(outputs).toEqual([`cdc-notifier ${packageJson.version}\n`, `${file}: OK\n`]);
  }, 60_000);
});

describe('a container', () => {
  let server: PostgresServer;
  let kafka: KafkaServer;

  beforeAll(async () => {
    const secure = {
      certificateFile: join(CERTIFICATES, 'server.crt'),
      keyFile: join(CERTIFICATES, 'server.key'),
      users: { [KAFKA_USER]: KAFKA_PASSWORD },
    };
    [server, kafka] = await Promise.all([startServer(), startKafka({ secure })]);
    await encrypt(server);
  }, 120_000);

  afterAll(async () => {
    await Promise.all([server?.[Symbol.asyncDispose](), kafka?.[Symbol.asyncDispose]()]);
  }, 30_000);

  /** PostgreSQL is verified with the CA certificates of the image, Kafka with a mounted file; passwords are files. */
  function secureScenario(port: number): Promise<BinaryFixture> {
    return openBinaryFixture({
      server,
      kafka,
      databaseKeys: { host: 'localhost', password: { file: 'postgres' }, tls: { mode: 'verify-full' } },
      kafkaClient: {
        brokers: [kafka.secureBootstrap],
        tls: { ca: 'kafka-ca.crt' },
        sasl: { mechanism: 'SCRAM-SHA-512', username: KAFKA_USER, password: { file: 'kafka' } },
      },
      settings: { http: { host: '127.0.0.1', port } },
    });
  }

  test('delivers over verified connections as PID 1 and an unprivileged user, and exits with 0 on SIGTERM', async () => {
    const port = await freePort();
    await using scenario = await secureScenario(port);
    // Only root can listen on port 53; otherwise the name comes from /etc/hosts.
    using names = IS_ROOT ? await startNameServer() : undefined;
    const resolver = names && { 'etc/resolv.conf': `nameserver ${names.address}\n` };
    const root = await containerRoot(scenario.config, resolver ?? HOSTS);
    await appendFile(join(root, AUTHORITIES), await authority());

    await using container = await startContainer(root, configuration);
    await container.waitForLine('the start', ({ msg, slot }) => msg === STARTED && slot === scenario.slot);
    await scenario.writer.write(30);
    await scenario.confirmed();
    await scenario.expectAllArrived();
    if (names !== undefined) expect([...names.asked]).toContain('localhost');
    const status = await statusOf(container);
    expect(status).toMatch(/^NSpid:.*\t1$/m);
    if (IS_ROOT) expect(status).toMatch(new RegExp(`^Uid:${`\t${NONROOT}`.repeat(4)}$`, 'm'));
    expect(status).toMatch(/^CapEff:\t0+$/m);
    expect(await readFile(`/proc/${container.pid}/cmdline`, 'utf8')).toBe(
      '/usr/bin/cdc-notifier\0/etc/cdc-notifier/config.yaml\0',
    );
    const answers = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).status;
    expect(await answers('/live')).toBe(200);
    await waitFor('/ready', async () => (await answers('/ready')) === 200);
    // PID 1 must reap its children; this one has none.
    expect(childrenOf(container.pid)).toEqual([]);
    expect(await container.stop()).toBe(0);
    expect(container.lines.filter(({ level }) => level !== 'info')).toEqual([]);
    expect(container.lines.at(-1)?.msg).toBe('cdc-notifier stopped');
  }, 90_000);

  test('trusts the CA certificates of the image and no others', async () => {
    await using scenario = await secureScenario(await freePort());
    const root = await containerRoot(scenario.config, HOSTS);
    await using container = await startContainer(root, configuration);
    const { error } = await container.waitForLine('the refusal', isFailure(scenario.slot));
    expect(error).toMatchObject({ name: 'SourceError', advice: expect.stringContaining('tls.ca') });
    expect(await container.stop()).toBe(0);
  }, 60_000);

  // TZ names a zone; for a mounted /etc/localtime the runtime finds the name of the same zone among the image's files.
  test.each(['TZ', '/etc/localtime'])(
    'uses the time zone of %s',
    async (source) => {
      await using scenario = await secureScenario(await freePort());
      const root = await containerRoot({ ...scenario.config, log: { format: 'text' } });
      // 5:45 hours ahead of UTC all year round.
      const zone = 'Asia/Kathmandu';
      if (source !== 'TZ') await cp(join(root, 'usr/share/zoneinfo', zone), join(root, 'etc/localtime'));
      const before = Date.now();
      await using container = await startContainer(root, configuration, source === 'TZ' ? { TZ: zone } : {});
      const line = await waitFor('a line', () => /^\[(.+?)\] INFO: cdc-notifier started$/m.exec(container.stderr));
      expect(Date.parse(`${line[1]!.replace(' ', 'T')}+05:45`)).toBeWithin(before, Date.now() + 1);
      expect(await container.stop()).toBe(0);
    },
    60_000,
  );
});

/** Installs the server's certificate and enables TLS. */
async function encrypt({ dataDirectory, sql, restart }: PostgresServer): Promise<void> {
  const { uid, gid } = await stat(dataDirectory);
  for (const name of ['server.crt', 'server.key']) {
    const path = join(dataDirectory, name);
    await writeFile(path, await readFile(join(CERTIFICATES, name)), { mode: 0o600 });
    await chown(path, uid, gid);
  }
  const admin = sql('postgres', { max: 1 });
  await admin`ALTER SYSTEM SET ssl = on`;
  await admin.end();
  await restart();
}
