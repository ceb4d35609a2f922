import { expect, test } from 'bun:test';
import { type BlockingSession, describeSessions } from '../../../../src/postgres/catalog/blocking-sessions.ts';

const session: BlockingSession = {
  pid: 71,
  preparedAs: undefined,
  database: 'main',
  username: 'app',
  applicationName: 'psql',
  state: 'idle in transaction',
  transactionAgeSeconds: 35,
};

test('describeSessions says what is known and leaves out what is hidden', () => {
  const hidden = {
    ...session,
    pid: 72,
    applicationName: '',
    state: undefined,
    transactionAgeSeconds: undefined,
  };
  const prepared = { ...hidden, pid: undefined, preparedAs: 'tx 1', transactionAgeSeconds: 0 };
  expect(describeSessions([session, hidden, prepared])).toBe(
    'pid 71 (database main, user app, application psql, idle in transaction, transaction open for 35 s), ' +
      'pid 72 (database main, user app), prepared transaction tx 1 (database main, user app, transaction open for 0 s)',
  );
  expect(describeSessions([{ ...hidden, database: undefined, username: undefined }])).toBe('pid 72');
});

test('describeSessions counts what it does not list', () => {
  const many = Array.from({ length: 12 }, (_, index) => ({ ...session, pid: index }));
  expect(describeSessions(many)).toEndWith(', 2 more');
});
