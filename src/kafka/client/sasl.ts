/** SASL login to the brokers of a Kafka client of the configuration. */
import type { ConnectionOptions } from '@platformatic/kafka';
import type { KafkaClientConfig } from '../../config/config.ts';
import { readSecret } from '../../config/secret.ts';

/**
 * The library's options for the login. The password is read now, to report a missing one as such, and again at each
 * connection, so that a rotated one is used without a restart.
 * @throws SecretError
 */
export function saslOptions({
  mechanism,
  username,
  password,
}: NonNullable<KafkaClientConfig['sasl']>): NonNullable<ConnectionOptions['sasl']> {
  readSecret(password);
  return { mechanism, username, password: () => readSecret(password) };
}
