import { describe, expect, test } from 'bun:test';
import { MalformedError, SourceError } from '../../src/errors.ts';
import { createLogger, serializeError } from '../../src/log.ts';

/** What the PostgreSQL driver throws: its fields may hold row values. */
function driverError(): Error {
  return Object.assign(new Error('duplicate key value'), {
    name: 'PostgresError',
    code: '23505',
    severity: 'ERROR',
    query: 'select HUNTER2X5',
    parameters: ['HUNTER2X5'],
    args: ['HUNTER2X5'],
    detail: 'Key (id)=(HUNTER2X5) already exists',
    where: 'HUNTER2X5',
  });
}

function capture(format: 'json' | 'text' | 'auto', level: 'debug' | 'warn' = 'debug') {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line) };
  return { lines, logger: createLogger({ level, format, destination }) };
}

describe('createLogger', () => {
  test('writes JSON lines with the label of the level, an ISO time and the bindings of children', () => {
    const { lines, logger } = capture('json');
    logger.child({ database: 'db', slot: 's' }).warn({ retry: 2, lsn: 5n }, 'slot is retried');
    expect(lines).toHaveLength(1);
    const { time, ...entry } = JSON.parse(lines[0] ?? '');
    expect(entry).toEqual({ level: 'warn', database: 'db', slot: 's', retry: 2, lsn: 5, msg: 'slot is retried' });
    expect(new Date(time).toISOString()).toBe(time);
  });

  test('writes JSON for auto when the destination is not a terminal', () => {
    const { lines, logger } = capture('auto');
    logger.info('hello');
    expect(JSON.parse(lines[0] ?? '').msg).toBe('hello');
  });

  test('omits lines below the level', () => {
    const { lines, logger } = capture('json', 'warn');
    logger.info('hello');
    expect(lines).toEqual([]);
  });

  test('writes text in format text, with the advice and the place of an error', () => {
    const { lines, logger } = capture('text');
    const error = new SourceError('Cannot stream: server is gone', {
      code: 'x',
      place: { slot: 's' },
      advice: 'Start it',
    });
    logger.error({ error }, 'slot failed');
    const text = lines.join('');
    expect(text).toMatch(/^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] ERROR: slot failed\n/);
    for (const part of ['Cannot stream: server is gone', 'advice: Start it', 'slot: s']) {
      expect(text).toContain(part);
    }
  });

  test.each(['json', 'text'] as const)(
    'never writes secrets, nor the extra fields of driver errors, as %s',
    (format) => {
      const { lines, logger } = capture(format);
      const secret = 'HUNTER2X5';
      logger.error({ error: new SourceError('Cannot read', { code: 'x', cause: driverError() }) }, 'failed');
      logger.error(driverError());
      logger.error({ err: driverError() }, 'failed');
      logger.info({ password: secret, database: { password: secret, tls: { key: secret } }, sasl: { a: secret } }, 'x');
      logger.info({ client: { main: { password: secret, sasl: { password: secret } } }, tls: { key: secret } }, 'x');
      expect(lines.join('')).not.toContain(secret);
      expect(lines.join('')).toContain('duplicate key value');
    },
  );

  test('keeps the record key of a place', () => {
    const { lines, logger } = capture('json');
    logger.error({ error: new SourceError('Cannot convert', { code: 'x', place: { key: 'ns id' } }) }, 'failed');
    expect(JSON.parse(lines[0] ?? '').error.place).toEqual({ key: 'ns id' });
  });
});

describe('serializeError', () => {
  test('gives name, message, code, advice, place and the chain of causes', () => {
    const cause = new SourceError('Cannot read', { code: 'x', cause: driverError() });
    const error = new SourceError('Cannot stream', { code: 'gone', advice: 'Wait', place: { database: 'db' }, cause });
    expect(serializeError(error)).toEqual({
      name: 'SourceError',
      message: 'Cannot stream',
      code: 'gone',
      advice: 'Wait',
      place: { database: 'db' },
      cause: {
        name: 'SourceError',
        message: 'Cannot read',
        code: 'x',
        cause: { name: 'PostgresError', message: 'duplicate key value', code: '23505', severity: 'ERROR' },
      },
    });
  });

  test('gives the stack only of errors not raised on purpose', () => {
    expect(serializeError(new TypeError('x'))).toHaveProperty('stack');
    expect(serializeError(new MalformedError('ETF', 3, 'unknown tag'))).not.toHaveProperty('stack');
    expect(serializeError(driverError())).not.toHaveProperty('stack');
  });

  test('ends in a circular chain of causes', () => {
    const error = new Error('a');
    error.cause = error;
    expect(JSON.stringify(serializeError(error))).toContain('"message":"a"');
  });

  test('shows the errors that an AggregateError gathers', () => {
    const serialized = serializeError(new AggregateError([driverError(), new Error('b')], 'all failed'));
    expect(serialized).toMatchObject({ message: 'all failed', errors: [{ code: '23505' }, { message: 'b' }] });
  });

  test.each([
    ['text', 'text'],
    [{ password: 'HUNTER2X5' }, 'thrown object'],
    [undefined, 'thrown undefined'],
  ])('of %p, which is not an error, is %p', (thrown, expected) => {
    expect(serializeError(thrown)).toBe(expected);
  });
});
