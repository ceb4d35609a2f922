/** What the library needs to know to reach the brokers of one Kafka client of the configuration. */
import type { ConnectionOptions } from '@platformatic/kafka';
import type { KafkaClientConfig } from '../../config/config.ts';
import { readSecret } from '../../config/secret.ts';

/**
 * Reads TLS material now; the SASL password now (so that a missing one is reported as such) and again at each connection.
 * @throws SecretError
 */
export function connectionOptions(config: KafkaClientConfig): ConnectionOptions {
  const { tls, sasl } = config;
  if (sasl !== undefined) readSecret(sasl.password);
  return {
    connectTimeout: config.connectTimeoutMs,
    requestTimeout: config.requestTimeoutMs,
    ...(tls !== undefined && {
      tls: {
        ...(tls.ca !== undefined && { ca: readSecret(tls.ca) }),
        ...(tls.cert !== undefined && { cert: readSecret(tls.cert) }),
        ...(tls.key !== undefined && { key: readSecret(tls.key) }),
        rejectUnauthorized: true,
      },
      ...(tls.serverName !== undefined && { tlsServerName: tls.serverName }),
    }),
    ...(sasl !== undefined && {
      sasl: { mechanism: sasl.mechanism, username: sasl.username, password: () => readSecret(sasl.password) },
    }),
  };
}
