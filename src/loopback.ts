import { isIP } from 'node:net';

/** True for hosts that traffic does not leave this machine for: only there is plaintext nobody else's business. */
export function isLoopback(host: string): boolean {
  return host.toLowerCase() === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
