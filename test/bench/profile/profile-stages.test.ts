import { expect, test } from 'bun:test';
import { stageOf } from './profile-stages.ts';

const frame = (url: string, label = url) => ({ label, url });

const FLOW = frame('file:///p/src/flow/flow.ts');
const CONVERT = frame('file:///p/src/conversion/convert.ts');
const DRIVER = frame('file:///p/node_modules/postgres/src/connection.js');

test.each([
  ['a function counts for the stage of its file', [DRIVER, FLOW, CONVERT], 'convert'],
  ['what several stages use counts for its caller', [FLOW, CONVERT, frame('file:///p/src/bytes/writer.ts')], 'convert'],
  ['what is not written in JavaScript counts for its caller', [DRIVER, frame('', 'subarray')], 'driver, streams'],
  ['a system call is a stage of its own', [DRIVER, frame('node:net'), frame('', 'writeBuffered')], 'system calls'],
  ['the collector is a stage of its own', [FLOW, frame('', 'gc')], 'garbage collection'],
  [
    'the hash is separate from the rest of the producer',
    [FLOW, frame('file:///p/src/kafka/produce/partitioner.ts')],
    'partition',
  ],
  ['what fits nowhere is other', [frame('', 'processTicksAndRejections')], 'other'],
  ['an empty stack is other', [], 'other'],
])('%s', (_, frames, stage) => {
  expect(stageOf(frames)).toBe(stage);
});
