/** `bun test/support/kafka/fetch.ts VERSION...`: brings Kafka's jars into the cache, and makes them start fast. */

import { makeClassArchive } from './node/class-archive.ts';
import { startKafka } from './server.ts';

for (const version of process.argv.slice(2)) {
  await makeClassArchive(version, async (javaArguments) => {
    await using kafka = await startKafka({ version, javaArguments });
    await kafka.createTopic('topic');
    await kafka.stop();
  });
}
