/**
 * The classes of a broker as Java maps them from a file, in place of reading jars: halves the time and the work of a start,
 * of which the tests make many. Made by a broker that runs once; a Java that it does not fit ignores it.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE_DIRECTORY, makeOnce } from '../../process/make-once.ts';

/** Where the archive of one version of Kafka is kept. */
export function classArchive(version: string): string {
  return join(CACHE_DIRECTORY, `kafka-${version}-classes.jsa`);
}

/** Arguments by which Java uses the archive; none as long as there is none. */
export function classArchiveArguments(version: string): string[] {
  const archive = classArchive(version);
  return existsSync(archive) ? [`-XX:SharedArchiveFile=${archive}`] : [];
}

/** @param runBroker starts a broker with further arguments for Java, and stops it in good order */
export async function makeClassArchive(
  version: string,
  runBroker: (javaArguments: readonly string[]) => Promise<void>,
): Promise<void> {
  await makeOnce(classArchive(version), (partial) => runBroker([`-XX:ArchiveClassesAtExit=${partial}`]));
}
