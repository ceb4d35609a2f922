import type { Sql } from 'postgres';

/**
 * Runs statements as the user that logged in. A role may have a default role (`ALTER ROLE ... SET role`, as Vault sets it)
 * that owns the tables; the functions of replication slots ask for REPLICATION of the current user, which is then not the one
 * that has it.
 */
export async function asSessionUser<T>(control: Sql, work: () => Promise<T>): Promise<T> {
  await control.unsafe('SET ROLE NONE');
  try {
    return await work();
  } finally {
    // A lost connection has lost the role as well.
    await control.unsafe('RESET ROLE').catch(() => {});
  }
}
