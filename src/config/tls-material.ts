/** What is wrong with a certificate and its key, as far as it shows without a connection. Nothing of them is ever shown. */
import { createPrivateKey, X509Certificate } from 'node:crypto';

/** The mistake of a private key as PEM text; undefined when none shows. */
export function keyMistake(key: string): string | undefined {
  return /ENCRYPTED/.test(key) ? 'is an encrypted key: give it without a passphrase, and protect the file' : undefined;
}

/** The mistake of a certificate and its key; undefined when they fit, and when one of them cannot be read here. */
export function pairMistake(cert: string, key: string): string | undefined {
  try {
    const isPair = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
    return isPair ? undefined : 'does not belong to the certificate in cert';
  } catch {
    return undefined;
  }
}
