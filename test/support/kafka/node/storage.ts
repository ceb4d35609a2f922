/** A broker's files: its jars, fetched once, and a formatted data directory. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeOnce } from '../../../../src/build/make-once.ts';
import { CACHE_DIRECTORY } from '../../process/directories.ts';
import { runProgram } from '../../process/run-program.ts';
import { classArchiveArguments } from './class-archive.ts';

const CLUSTER_ID = 'Y2RjLW5vdGlmaWVyLXRlcw';
const POM = join(import.meta.dirname, 'pom.xml');

/** Fetches the jars of a Kafka version into the cache and returns their directory. */
export async function fetchKafka(version: string): Promise<string> {
  const jars = join(CACHE_DIRECTORY, `kafka-${version}`);
  await makeOnce(jars, async (partial) => {
    const goal = 'dependency:copy-dependencies';
    const options = [`-Dkafka.version=${version}`, '-DincludeScope=runtime', `-DoutputDirectory=${partial}`];
    await runProgram('mvn', ['--quiet', '--batch-mode', '--file', POM, goal, ...options]);
  });
  return jars;
}

/** The Java program: that of JAVA_HOME, else the one on PATH. */
export function javaProgram(): string {
  return process.env.JAVA_HOME ? join(process.env.JAVA_HOME, 'bin', 'java') : 'java';
}

/** Options of `formatStorage`. */
export interface Storage {
  readonly version: string;
  readonly jars: string;
  /** server.properties of the node */
  readonly propertiesFile: string;
  readonly dataDirectory: string;
  readonly nodeId: number;
  /** Users with SCRAM passwords: formatting writes them */
  readonly formatArguments: readonly string[];
}

/** Formats a data directory. That takes a Java start; without users the result depends on the version only and is cached. */
export async function formatStorage(storage: Storage): Promise<void> {
  if (storage.formatArguments.length > 0) {
    await runStorageTool(storage, storage.propertiesFile);
    return;
  }
  const template = join(CACHE_DIRECTORY, `kafka-${storage.version}-storage`);
  await makeOnce(template, async (partial) => {
    await mkdir(partial);
    const properties = join(partial, 'format.properties');
    const text = await readFile(storage.propertiesFile, 'utf8');
    await writeFile(properties, text.replace(/^log\.dirs=.*$/m, `log.dirs=${join(partial, 'data')}`));
    await runStorageTool(storage, properties);
  });
  await runProgram('cp', ['-R', join(template, 'data'), storage.dataDirectory]);
  // meta.properties names the node, and directory ids are unique in a cluster.
  const metaFile = join(storage.dataDirectory, 'meta.properties');
  const directoryId = Buffer.from(crypto.randomUUID().replaceAll('-', ''), 'hex').toString('base64url');
  const meta = (await readFile(metaFile, 'utf8'))
    .replace(/^node\.id=.*$/m, `node.id=${storage.nodeId}`)
    .replace(/^directory\.id=.*$/m, `directory.id=${directoryId.replace(/^-/, 'A')}`);
  await writeFile(metaFile, meta);
}

async function runStorageTool({ version, jars, formatArguments }: Storage, propertiesFile: string): Promise<void> {
  const command = ['kafka.tools.StorageTool', 'format', '-t', CLUSTER_ID, '-c', propertiesFile, ...formatArguments];
  await runProgram(javaProgram(), [
    '-XX:TieredStopAtLevel=1',
    ...classArchiveArguments(version),
    '-cp',
    `${jars}/*`,
    ...command,
  ]);
}
