/** `bun test/support/kafka/fetch.ts VERSION...`: fetches Kafka's jars into the cache. It imports no npm package. */
import { fetchKafka } from './node/storage.ts';

for (const version of process.argv.slice(2)) await fetchKafka(version);
