/** `bun test/support/kafka/archive-classes.ts VERSION...`: runs a broker once, so that every later one starts faster. */
import { makeClassArchive } from './node/class-archive.ts';
import { startKafka } from './server.ts';

for (const version of process.argv.slice(2)) {
  await makeClassArchive(version, async (javaArguments) => {
    await using kafka = await startKafka({ version, javaArguments });
    await kafka.createTopic('topic');
    await kafka.stop();
  });
}
