import { describe, expect, test } from 'bun:test';
import postgres from 'postgres';
import { SetupError } from '../../src/errors.ts';
import { explainSourceError } from '../../src/postgres/explain.ts';

/** An error as the driver makes it of what the server sent; its types hide the constructor. */
function serverError(code: string): Error {
  const PostgresError = postgres.PostgresError as unknown as new (fields: object) => Error;
  return new PostgresError({ code, message: 'text in any language', detail: 'row values', query: 'SELECT secret' });
}

describe('explainSourceError', () => {
  test.each([
    ['28P01', 'does not let us in'],
    ['28000', 'does not let us in'],
    ['3D000', 'the database does not exist'],
    ['42501', 'lacks a right'],
    ['53300', 'walsender'],
    ['55006', 'another process streams'],
    ['55000', 'cannot be used'],
    ['57P01', 'the server ended the connection'],
    ['57P02', 'stopping or starting'],
    ['57P03', 'stopping or starting'],
    ['58P01', 'misses a file'],
    ['08006', 'the connection failed'],
  ])('explains SQLSTATE %s', (code, what) => {
    const error = explainSourceError(serverError(code));
    expect(error.message).toContain(what);
    expect(error.message).toContain(`SQLSTATE ${code}`);
    expect(error.message).not.toContain('text in any language');
  });

  test.each([
    ['ECONNREFUSED', 'nobody listens'],
    ['ENOTFOUND', 'does not resolve'],
    ['CONNECTION_CLOSED', 'was closed'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', 'another host name'],
  ])('explains %s', (code, what) => {
    const error = explainSourceError(Object.assign(new Error('x'), { code }));
    expect(error.message).toContain(what);
    expect(error.message).toContain(code);
  });

  test('names the code of what it cannot explain, and keeps the error as the cause', () => {
    const cause = serverError('XX000');
    const error = explainSourceError(cause);
    expect(error.message).toBe('Cannot follow PostgreSQL: unexpected error (SQLSTATE XX000)');
    expect(error.cause).toBe(cause);
  });

  test('leaves errors alone that were raised on purpose', () => {
    const error = new SetupError('Cannot prepare slot: x');
    expect(explainSourceError(error)).toBe(error);
  });
});
