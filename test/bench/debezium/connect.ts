/** Kafka Connect as a program of one worker with one connector. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { propertyLines } from '../../support/kafka/node/node.ts';
import { javaProgram } from '../../support/kafka/node/storage.ts';
import { freePort } from '../../support/network/ports.ts';
import { ChildProgram } from '../service/child-program.ts';
import { type ConnectorTarget, connectorSettings, JAVA_ARGUMENTS, workerSettings } from './settings.ts';

const LOG_CONFIGURATION = join(import.meta.dirname, 'log4j2.properties');

/** Log text of Connect when a task has failed for good; Connect itself keeps running. */
const TASK_FAILED = 'unrecoverable exception';

/** Starts a worker with a connector for one slot; its files are in `directory`. */
export async function startConnect(
  place: { readonly jars: string; readonly directory: string; readonly bootstrap: string },
  target: ConnectorTarget,
): Promise<ChildProgram> {
  const file = (name: string): string => join(place.directory, `${target.slot}-${name}`);
  const [worker, connector] = [file('worker.properties'), file('connector.properties')];
  const { bootstrap } = place;
  const settings = workerSettings({ bootstrap, restPort: await freePort(), offsetsFile: file('offsets') });
  await writeFile(worker, propertyLines(settings));
  await writeFile(connector, propertyLines(connectorSettings(target)));
  const program = new ChildProgram([
    javaProgram(),
    ...JAVA_ARGUMENTS,
    `-Dlog4j2.configurationFile=${LOG_CONFIGURATION}`,
    '-cp',
    `${place.jars}/*`,
    'org.apache.kafka.connect.cli.ConnectStandalone',
    worker,
    connector,
  ]);
  // Ends the program, so that waiting callers fail with its last lines; if it has ended by itself they know already.
  void program
    .line(TASK_FAILED)
    .then(() => process.kill(program.pid, 'SIGTERM'))
    .catch(() => {});
  return program;
}
