import { majorOf } from '../catalog/server.ts';

/**
 * First minor release of each major version that decodes a change with the publication as it is at that change: older ones may
 * go on with the publication as it was, for transactions that were open while it was altered and for later ones. The releases
 * right before these have that correction too, and can fail with it: each transaction passes the invalidations of others on, until
 * their size exceeds what the server allocates. Versions that are not listed have both corrections from their first release.
 *
 * Source: PostgreSQL bugs 18938 and 18942, corrected in June 2025.
 */
const CORRECTED_MINORS: Readonly<Record<number, number>> = { 14: 19, 15: 14, 16: 10, 17: 6 };

/**
 * The release to update to, such as `17.6`; undefined when the server needs no update.
 * @param versionNumber `server_version_num`
 */
export function neededRelease(versionNumber: number): string | undefined {
  const major = majorOf(versionNumber);
  const minor = CORRECTED_MINORS[major];
  return minor !== undefined && versionNumber % 10_000 < minor ? `${major}.${minor}` : undefined;
}
