import { describe, expect, test } from 'bun:test';
import type { NamespaceConfig } from '../../../../src/config/config.ts';
import {
  configurationId,
  newerConfigurations,
  withConfiguration,
  withNewest,
} from '../../../../src/postgres/continuity/configuration-order.ts';

const invoice: NamespaceConfig = {
  kafkaClient: 'main',
  eventsinkTopic: 'events',
  lifecycleTopic: 'lifecycle',
  onMissingOldTuple: 'stop',
  onInvalid: 'stop',
  parkingTopic: undefined,
  replicaIdentity: 'full',
  publishColumns: 'all',
};
const orders = { ...invoice, eventsinkTopic: 'orders' };

describe('configurationId', () => {
  test('does not depend on the order of the file', () => {
    const one = configurationId(new Map(Object.entries({ invoice, orders })));
    expect(one).toMatch(/^[0-9a-f]{8}$/);
    expect(configurationId(new Map(Object.entries({ orders, invoice })))).toBe(one);
  });

  test.each([
    ['a namespace', new Map(Object.entries({ invoice, orders }))],
    ['its name', new Map(Object.entries({ orders: invoice }))],
    ...Object.keys(invoice).map((key) => [key, new Map([['invoice', { ...invoice, [key]: 'other' }]])] as const),
  ])('differs in %s', (_, namespaces) => {
    expect(configurationId(namespaces as never)).not.toBe(configurationId(new Map([['invoice', invoice]])));
  });
});

describe('the order of configurations', () => {
  test('is the one in which they first took the slot', () => {
    const order = ['a', 'b', 'a', 'c', 'b'].reduce<readonly string[]>(withConfiguration, []);
    expect(order).toEqual(['a', 'b', 'c']);
    expect(['a', 'b', 'c', 'unknown'].map((own) => newerConfigurations(order, own))).toEqual([
      ['b', 'c'],
      ['c'],
      [],
      [],
    ]);
  });

  test('forgets the oldest of more than eight', () => {
    const order = [...'abcdefghij'].reduce<readonly string[]>(withConfiguration, []);
    expect(order.join('')).toBe('cdefghij');
  });

  test('changes when an older one is meant', () => {
    expect(withNewest(['a', 'b', 'c'], 'a')).toEqual(['b', 'c', 'a']);
  });
});
