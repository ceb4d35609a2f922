/** `bun test/support/kafka/fetch.ts VERSION...`: brings Kafka's jars into the cache ahead of the tests. */
import { fetchKafka } from './storage.ts';

for (const version of process.argv.slice(2)) await fetchKafka(version);
