import { expect, test } from 'bun:test';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileSecret } from '../../../../src/config/secret.ts';
import { SecretError } from '../../../../src/errors.ts';
import { saslOptions } from '../../../../src/kafka/client/sasl.ts';
import { temporaryDirectory } from '../../../support/process/temporary-directory.ts';

test('the password is read at each login, and a missing one is reported before', async () => {
  await using directory = await temporaryDirectory('sasl');
  const file = join(directory.path, 'password');
  await writeFile(file, 'first');
  const login = { mechanism: 'SCRAM-SHA-512', username: 'user', password: fileSecret(file) } as const;
  const options = saslOptions(login);
  expect(options).toMatchObject({ mechanism: 'SCRAM-SHA-512', username: 'user' });
  const readPassword = options.password as () => string;
  expect(readPassword()).toBe('first');
  await writeFile(file, 'second');
  expect(readPassword()).toBe('second');
  await rm(file);
  expect(() => saslOptions(login)).toThrow(SecretError);
});
