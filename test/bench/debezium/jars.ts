/** The jars of Kafka Connect and Debezium, fetched once from Maven Central and cached in `.cache/`. */
import { join } from 'node:path';
import { makeOnce } from '../../../src/build/make-once.ts';
import { KAFKA_VERSION } from '../../support/kafka/server.ts';
import { CACHE_DIRECTORY } from '../../support/process/directories.ts';
import { runProgram } from '../../support/process/run-program.ts';

/** The newest complete version on Maven Central: 3.7.1 was published without modules that its connector needs. */
export const DEBEZIUM_VERSION = '3.7.0.Final';

const POM = join(import.meta.dirname, 'pom.xml');

/** Fetches the jars into the cache and returns their directory. Connect has the broker's version. */
export async function fetchDebezium(): Promise<string> {
  const jars = join(CACHE_DIRECTORY, `debezium-${DEBEZIUM_VERSION}-kafka-${KAFKA_VERSION}`);
  await makeOnce(jars, async (partial) => {
    const versions = [`-Dkafka.version=${KAFKA_VERSION}`, `-Ddebezium.version=${DEBEZIUM_VERSION}`];
    const options = [...versions, '-DincludeScope=runtime', `-DoutputDirectory=${partial}`];
    await runProgram('mvn', ['--quiet', '--batch-mode', '--file', POM, 'dependency:copy-dependencies', ...options]);
  });
  return jars;
}
