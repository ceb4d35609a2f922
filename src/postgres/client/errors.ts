/**
 * The SQLSTATEs that decisions depend on. Messages are never matched: they are translated and change between versions.
 * Source: PostgreSQL manual, appendix "PostgreSQL Error Codes".
 */
import postgres from 'postgres';
import { type Lsn, parseLsn } from '../../lsn.ts';

/** Names of the manual, in its spelling. */
export const SQL_STATE = {
  protocolViolation: '08P01',
  uniqueViolation: '23505',
  readOnlySqlTransaction: '25006',
  invalidCatalogName: '3D000',
  serializationFailure: '40001',
  deadlockDetected: '40P01',
  insufficientPrivilege: '42501',
  syntaxError: '42601',
  duplicateObject: '42710',
  undefinedObject: '42704',
  transactionTimeout: '25P04',
  tooManyConnections: '53300',
  programLimitExceeded: '54000',
  configurationLimitExceeded: '53400',
  objectNotInPrerequisiteState: '55000',
  objectInUse: '55006',
  lockNotAvailable: '55P03',
  queryCanceled: '57014',
  adminShutdown: '57P01',
  cannotConnectNow: '57P03',
  undefinedFile: '58P01',
  internalError: 'XX000',
} as const;

/** The SQLSTATE of an error that the server sent; undefined for every other error. */
export function sqlStateOf(error: unknown): string | undefined {
  return error instanceof postgres.PostgresError ? error.code : undefined;
}

/** LSN in the CONTEXT of an error or notice of a decoding server (`..., associated LSN 0/1A2B3C4D`), in any language. */
export function lsnInContext(where: string | undefined): Lsn | undefined {
  const found = where?.match(/\b[0-9A-F]{1,8}\/[0-9A-F]{1,8}\b(?!.*\b[0-9A-F]{1,8}\/[0-9A-F]{1,8}\b)/s);
  return found ? parseLsn(found[0]) : undefined;
}

/** The CONTEXT of an error that the server sent. */
export function contextOf(error: unknown): string | undefined {
  return error instanceof Error && 'where' in error && typeof error.where === 'string' ? error.where : undefined;
}
