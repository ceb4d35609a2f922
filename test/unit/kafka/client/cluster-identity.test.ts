import { expect, test } from 'bun:test';
import { ClusterIdentity } from '../../../../src/kafka/client/cluster-identity.ts';
import { clientConfig } from '../../../support/kafka/open-producer.ts';
import { recordingLogger } from '../../../support/service/recording-logger.ts';

test('the first cluster that answers is remembered, and another one is refused by name', () => {
  const known = new Map<string, string>();
  const identity = new ClusterIdentity(clientConfig([1]), known, recordingLogger().logger);
  identity.check('one');
  identity.check('one');
  identity.check(null);
  expect(() => identity.check('two')).toThrow('Cannot use Kafka cluster two: the slot delivers to cluster one');
  expect(Object.fromEntries(known)).toEqual({ main: 'one' });
});

test('the cluster that the configuration accepts takes its place, and no third one', () => {
  const known = new Map([['main', 'one']]);
  const { logger, lines } = recordingLogger();
  const identity = new ClusterIdentity(clientConfig([1], { acceptClusterId: 'two' }), known, logger);
  expect(() => identity.check('three')).toThrow('cluster three');
  identity.check('two');
  identity.check('two');
  expect(Object.fromEntries(known)).toEqual({ main: 'two' });
  expect(lines).toMatchObject([{ level: 'warn', event: 'kafka_cluster_accepted', from: 'one', to: 'two' }]);
});
