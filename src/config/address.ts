/** Addresses of servers in the configuration. */

import { isIP, isIPv6 } from 'node:net';
import type { ServerAddress } from './config.ts';

/** Default port of a database. */
export const POSTGRES_PORT = 5432;

/** True for a host name, IPv4 address or IPv6 address, without port and brackets. */
export function isHost(text: string): boolean {
  return isIPv6(text) || /^[^\s/:,@[\]]+$/u.test(text);
}

/** Parses `host:port` or `[address]:port`; with a default port also `host` or `[address]`. Undefined for anything else. */
export function parseAddress(text: string, defaultPort?: number): ServerAddress | undefined {
  const match = /^(?:\[(?<address>[^\]]+)\]|(?<name>[^\s/:,@[\]]+))(?::(?<port>[0-9]{1,5}))?$/u.exec(text);
  const { address, name, port: portText } = match?.groups ?? {};
  const host = address ?? name;
  const port = portText === undefined ? defaultPort : Number(portText);
  if (host === undefined || port === undefined || port < 1 || port > 65_535) return undefined;
  return address === undefined || isIPv6(address) ? { host, port } : undefined;
}

/** Formats an address for `parseAddress`: `host:port`, an IPv6 address in brackets. */
export function formatAddress({ host, port }: ServerAddress): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** True for hosts whose traffic never leaves this machine: plaintext is safe there. */
export function isLoopback(host: string): boolean {
  return host.toLowerCase() === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}
