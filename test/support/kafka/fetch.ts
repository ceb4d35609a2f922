/** `bun test/support/kafka/fetch.ts [VERSION]`: brings Kafka's jars into the cache ahead of the tests. */
import { fetchKafka } from '../kafka.ts';

await fetchKafka(process.argv[2]);
