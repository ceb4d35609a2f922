import { expect, test } from 'bun:test';
import pino from 'pino';
import { DeliveryTrial, type TriedPartition } from '../../../../src/kafka/produce/delivery-trial.ts';

const log = pino({ level: 'silent' });
const REFUSED: TriedPartition = { kafkaClient: 'main', topic: 'events', partition: 3 };
const OTHERS: readonly TriedPartition[] = [
  { ...REFUSED, partition: 4 },
  { ...REFUSED, topic: 'lifecycle' },
  { ...REFUSED, kafkaClient: 'second' },
];

test('a first session sends to all partitions', () => {
  const trial = new DeliveryTrial();
  trial.begin(log, () => {});
  expect([trial.isActive, trial.admits(REFUSED), ...OTHERS.map((one) => trial.admits(one))]).toEqual([
    false,
    true,
    true,
    true,
    true,
  ]);
});

test('a session after a refusal sends to that partition alone, until Kafka has acknowledged it', () => {
  const trial = new DeliveryTrial();
  let endCount = 0;
  trial.noteRefused(REFUSED);
  trial.begin(log, () => endCount++);
  expect([REFUSED, ...OTHERS].map((one) => trial.admits(one))).toEqual([true, false, false, false]);
  for (const other of OTHERS) trial.noteAcknowledged(other);
  expect([trial.isActive, endCount]).toEqual([true, 0]);
  trial.noteAcknowledged(REFUSED);
  expect([trial.isActive, endCount, ...OTHERS.map((one) => trial.admits(one))]).toEqual([false, 1, true, true, true]);
  trial.begin(log, () => endCount++);
  expect(trial.isActive).toBe(false);
});

test('a session that ends in between leaves the trial to the next one', () => {
  const trial = new DeliveryTrial();
  trial.noteRefused(REFUSED);
  trial.begin(log, () => {});
  trial.stop();
  expect(trial.isActive).toBe(false);
  trial.begin(log, () => {});
  expect(trial.isActive).toBe(true);
  trial.stop();
});
