import { describe, expect, test } from 'bun:test';
import { formatAddress, isLoopback, parseAddress } from '../../../src/config/address.ts';

describe('parseAddress', () => {
  test.each([
    ['db:1', 'db', 1],
    ['10.0.0.1:65535', '10.0.0.1', 65_535],
    ['[2001:db8::1]:5433', '2001:db8::1', 5433],
  ])('takes %s apart, and formatAddress puts it together again', (text, host, port) => {
    expect(parseAddress(text)).toEqual({ host, port });
    expect(formatAddress({ host, port })).toBe(text);
  });

  test.each(['db', '[::1]'])('takes %s where there is a default port only', (text) => {
    expect(parseAddress(text, 5432)?.port).toBe(5432);
    expect(parseAddress(text)).toBeUndefined();
  });

  test.each([
    '',
    ':1',
    'db:',
    'db:0',
    'db:65536',
    'db:1:2',
    '::1',
    '[db]:1',
    '[10.0.0.1]:1',
    '[::1',
    'db/1',
    'u@db',
    'd b',
  ])('refuses %p', (text) => {
    expect(parseAddress(text, 5432)).toBeUndefined();
  });
});

describe('isLoopback', () => {
  test.each(['localhost', 'LocalHost', '127.0.0.1', '127.8.8.8', '::1'])('%s is', (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  test.each(['127.example.org', 'localhost.example.org', '10.0.0.1', '::', '::2', '0.0.0.0'])('%s is not', (host) => {
    expect(isLoopback(host)).toBe(false);
  });
});
