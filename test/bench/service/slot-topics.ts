/** The topics of one slot under measurement. */
import { type Environment, PARTITION_COUNT } from '../environment.ts';
import type { NotifierTarget } from './notifier.ts';

/** Creates topics for one slot. */
export async function createTopics(
  { kafka }: Environment,
  { database, slot }: Pick<NotifierTarget, 'database' | 'slot'>,
  {
    partitions = PARTITION_COUNT,
    config = {},
  }: { partitions?: number | undefined; config?: Record<string, string> } = {},
): Promise<NotifierTarget> {
  const target = {
    database,
    slot,
    eventsTopic: `${database}_${slot}_events`,
    lifecycleTopic: `${database}_${slot}_lifecycle`,
  };
  await kafka.createTopic(target.eventsTopic, { partitions, config });
  await kafka.createTopic(target.lifecycleTopic, { partitions, config });
  return target;
}

/** Deletes the topics of `createTopics`. */
export async function deleteTopics({ kafka }: Environment, target: NotifierTarget): Promise<void> {
  await kafka.deleteTopic(target.eventsTopic);
  await kafka.deleteTopic(target.lifecycleTopic);
}
