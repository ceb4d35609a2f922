/** A second listener of the test broker that asks for TLS, and for SASL or a client certificate. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What the listener asks for. */
export interface SecureListenerOptions {
  /** PEM file of the broker's certificate, followed by its chain */
  readonly certificateFile: string;
  /** PEM file of its private key (PKCS #8) */
  readonly keyFile: string;
  /** Users and passwords, the same for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; without users SASL is off */
  readonly users?: Readonly<Record<string, string>> | undefined;
  /** PEM file of the authority whose client certificates are required; without it none is */
  readonly clientAuthorityFile?: string | undefined;
  /** How the broker calls itself, default `localhost`; it listens on 127.0.0.1 all the same */
  readonly advertisedHost?: string | undefined;
}

/** A listener as settings of the broker and arguments of its storage tool. */
export interface SecureListener {
  readonly bootstrap: string;
  readonly listener: string;
  readonly advertised: string;
  /** Security protocol of the listener, whose name is SECURE */
  readonly protocol: 'SSL' | 'SASL_SSL';
  readonly settings: Readonly<Record<string, string>>;
  readonly formatArguments: readonly string[];
}

const SCRAM_MECHANISMS = ['SCRAM-SHA-256', 'SCRAM-SHA-512'];

/** Lays the key out in `directory` as Java wants it, and says what to set. */
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
