/** The library's options for a connection of a Kafka client of the configuration: timeouts, TLS and SASL. */
import type { ConnectionOptions } from '@platformatic/kafka';
import type { KafkaClientConfig } from '../../config/config.ts';
import { readSecret } from '../../config/secret.ts';
import { saslOptions } from './sasl.ts';

/**
 * Options for one connection; reads the TLS files now.
 * @throws SecretError
 */
export function connectionOptions(config: KafkaClientConfig): ConnectionOptions {
  const { tls, sasl } = config;
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
    ...(sasl !== undefined && { sasl: saslOptions(sasl) }),
  };
}
