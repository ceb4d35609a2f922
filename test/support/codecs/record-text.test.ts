import { expect, test } from 'bun:test';
import { ByteWriter } from '../../../src/bytes/writer.ts';
import { EventPayload } from '../../../src/conversion/payload/payload.ts';
import { writeLifecycleEvent, writeSinkEvent } from '../../../src/conversion/thrift/mg-proto.ts';
import { encodePayload, int, str, type Value } from './etf.ts';
import {
  briefValue,
  describeRecord,
  eventContent,
  exactValue,
  lifecycleContent,
  parseTimestamp,
} from './record-text.ts';

const place = { topic: 't', partition: 2, offset: 7n, key: Buffer.from('ns p'), timestampMs: 0 };
const all: Value = {
  obj: [
    [str('a"'), { arr: [{ nl: {} }, { b: true }, int(-5), { flt: 1.5 }, { flt: 2 }] }],
    [int(1), { bin: Buffer.from('0102030405', 'hex') }],
  ],
};

test('describeRecord gives an event the content of its row', () => {
  const payload = encodePayload(all);
  const out = new ByteWriter();
  writeSinkEvent(out, {
    event: {
      source_ns: Buffer.from('ns'),
      source_id: Buffer.from('p'),
      event_id: 3n,
      created_at: Buffer.from('2016-03-22T06:12:27Z'),
      format_version: 1,
      data: new EventPayload(payload, 0, payload.length),
    },
  });
  expect(describeRecord({ ...place, value: out.toBuffer() }, 'eventsink')).toEqual({
    topic: 't',
    partition: 2,
    offset: 7n,
    key: Buffer.from('ns p'),
    content: eventContent({ namespace: 'ns', processId: 'p', eventId: 3, formatVersion: 1, data: all }),
    createdAt: 1_458_627_147,
    summary: 'event 3 v1 {"a\\"": [null, true, -5, 1.5, 2e+0], 1: <5 bytes 01020304..>}',
  });
});

test('describeRecord gives a failure the content of its update', () => {
  const out = new ByteWriter();
  writeLifecycleEvent(out, {
    machine_ns: Buffer.from('ns'),
    machine_id: Buffer.from('p'),
    created_at: Buffer.from('2016-03-22T06:12:27Z'),
    data: { machine: { status_changed: { new_status: { failed: { reason: Buffer.from('why') } } } } },
  });
  const record = describeRecord({ ...place, value: out.toBuffer() }, 'lifecycle');
  expect(record.summary).toBe('failed: why');
  expect(record.content).toBe(lifecycleContent({ namespace: 'ns', processId: 'p', change: 'failed', reason: 'why' }));
});

test('describeRecord describes a value that is not a record', () => {
  const record = describeRecord({ ...place, value: Buffer.from('nonsense') }, 'eventsink');
  expect(record.content).toBeUndefined();
  expect(record.createdAt).toBeNaN();
  expect(record.summary).toStartWith('cannot be decoded: ');
});

test('exactValue differs for Values that differ', () => {
  const values: Value[] = [
    { nl: {} },
    { b: true },
    { b: false },
    int(1),
    { flt: 1 },
    { flt: 0 },
    { flt: -0 },
    str('1'),
    { bin: Buffer.from('1') },
    { arr: [] },
    { arr: [{ arr: [] }] },
    { arr: [int(1), int(2)] },
    { obj: [] },
    { obj: [[int(1), int(2)]] },
    { obj: [[int(2), int(1)]] },
  ];
  expect(new Set(values.map(exactValue)).size).toBe(values.length);
  expect(briefValue({ arr: [] })).toBe('[]');
});

test.each([
  ['2016-03-22T06:12:27Z', 1_458_627_147],
  ['1969-12-31T23:59:59Z', -1],
  ['2016-03-22T06:12:27.5Z', Number.NaN],
  ['2016-03-22T06:12:27+00:00', Number.NaN],
  ['2016-13-22T06:12:27Z', Number.NaN],
])('parseTimestamp %p', (text, seconds) => {
  expect(parseTimestamp(Buffer.from(text))).toBe(seconds);
});
