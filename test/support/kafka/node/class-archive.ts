/**
 * Class data sharing (CDS): Java maps a broker's classes from an archive instead of reading jars, which halves the time and
 * the CPU of a start. A broker that runs once writes the archive; a Java that it does not fit ignores it.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { makeOnce } from '../../../../src/build/make-once.ts';
import { CACHE_DIRECTORY } from '../../process/directories.ts';

/** The archive file of one Kafka version. */
function classArchive(version: string): string {
  return join(CACHE_DIRECTORY, `kafka-${version}-classes.jsa`);
}

/** Java arguments that use the archive; empty while there is no archive. */
export function classArchiveArguments(version: string): string[] {
  const archive = classArchive(version);
  return existsSync(archive) ? [`-XX:SharedArchiveFile=${archive}`] : [];
}

/**
 * Writes the archive of a version, unless it exists.
 * @param runBroker starts a broker with these extra Java arguments, and stops it gracefully
 */
export async function makeClassArchive(
  version: string,
  runBroker: (javaArguments: readonly string[]) => Promise<void>,
): Promise<void> {
  await makeOnce(classArchive(version), (partial) => runBroker([`-XX:ArchiveClassesAtExit=${partial}`]));
}
