/** A second listener of a test broker: TLS, with SASL or client certificates if wanted. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Options of `secureListener`. */
export interface SecureListenerOptions {
  /** PEM file of the broker's certificate, followed by its chain */
  readonly certificateFile: string;
  /** PEM file of its private key (PKCS #8) */
  readonly keyFile: string;
  /** Users and passwords, the same for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; without users SASL is off */
  readonly users?: Readonly<Record<string, string>> | undefined;
  /** PEM file of the authority that must have signed client certificates; without it none is required */
  readonly clientAuthorityFile?: string | undefined;
  /** Host name that the broker advertises, default `localhost`; it listens on 127.0.0.1 in any case */
  readonly advertisedHost?: string | undefined;
}

/** A listener as broker settings and storage tool arguments. */
export interface SecureListener {
  readonly bootstrap: string;
  readonly listener: string;
  readonly advertised: string;
  /** Security protocol of the listener named SECURE */
  readonly protocol: 'SSL' | 'SASL_SSL';
  readonly settings: Readonly<Record<string, string>>;
  readonly formatArguments: readonly string[];
}

const SCRAM_MECHANISMS = ['SCRAM-SHA-256', 'SCRAM-SHA-512'];

/** Writes the key store into `directory` in Java's form and returns the settings. */
export async function secureListener(
  options: SecureListenerOptions,
  port: number,
  directory: string,
): Promise<SecureListener> {
  const keyStore = join(directory, 'keystore.pem');
  const [key, certificate] = await Promise.all([readFile(options.keyFile), readFile(options.certificateFile)]);
  await writeFile(keyStore, Buffer.concat([key, certificate]), { mode: 0o600 });
  const bootstrap = `${options.advertisedHost ?? 'localhost'}:${port}`;
  const users = Object.entries(options.users ?? {});
  return {
    bootstrap,
    listener: `SECURE://127.0.0.1:${port}`,
    advertised: `SECURE://${bootstrap}`,
    protocol: users.length > 0 ? 'SASL_SSL' : 'SSL',
    settings: {
      'ssl.keystore.type': 'PEM',
      'ssl.keystore.location': keyStore,
      ...(options.clientAuthorityFile === undefined
        ? {}
        : {
            'ssl.truststore.type': 'PEM',
            'ssl.truststore.location': options.clientAuthorityFile,
            'listener.name.secure.ssl.client.auth': 'required',
          }),
      ...(users.length > 0 ? saslSettings(users) : {}),
    },
    formatArguments: SCRAM_MECHANISMS.flatMap((mechanism) =>
      users.flatMap(([name, password]) => ['--add-scram', `${mechanism}=[name=${name},password=${password}]`]),
    ),
  };
}

function saslSettings(users: readonly (readonly [string, string])[]): Record<string, string> {
  const plain = 'org.apache.kafka.common.security.plain.PlainLoginModule';
  const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule';
  const passwords = users.map(([name, password]) => `user_${name}="${password}"`).join(' ');
  const settings: Record<string, string> = {
    'listener.name.secure.sasl.enabled.mechanisms': ['PLAIN', ...SCRAM_MECHANISMS].join(','),
    'listener.name.secure.plain.sasl.jaas.config': `${plain} required ${passwords};`,
  };
  for (const mechanism of SCRAM_MECHANISMS) {
    settings[`listener.name.secure.${mechanism.toLowerCase()}.sasl.jaas.config`] = `${scram} required;`;
  }
  return settings;
}
