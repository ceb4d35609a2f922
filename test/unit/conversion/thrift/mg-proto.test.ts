import { describe, expect, test } from 'bun:test';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import {
  type LifecycleEvent,
  type MachineLifecycleEvent,
  type MachineStatus,
  writeLifecycleEvent,
  writeMachineEvent,
  writeMachineStatus,
  writeSinkEvent,
} from '../../../../src/conversion/thrift/mg-proto.ts';
import {
  type DecodedLifecycleEvent,
  decodeLifecycleEvent,
  decodeSinkEvent,
} from '../../../support/codecs/thrift-reader.ts';
import { type LifecycleVector, readLifecycleVectors } from '../../../support/codecs/vectors.ts';

/** Writes Value `{b, true}`. */
const TRUE = { writeTo: (out: ByteWriter) => void out.copy(Buffer.from('0200020100', 'hex')) };

function lifecycleEvent({ event, reason }: LifecycleVector): MachineLifecycleEvent {
  switch (event) {
    case 'created':
      return { created: {} };
    case 'removed':
      return { removed: {} };
    case 'repaired':
      return { status_changed: { new_status: { working: {} } } };
    case 'failed':
      return { status_changed: { new_status: { failed: { reason: Buffer.from(reason ?? 'unknown') } } } };
  }
}

describe('writeLifecycleEvent', () => {
  const vectors = readLifecycleVectors();

  test('gives every golden record byte for byte', () => {
    expect(new Set(vectors.map(({ event }) => event)).size).toBe(4);
    for (const vector of vectors) {
      const out = new ByteWriter();
      writeLifecycleEvent(out, {
        machine_ns: Buffer.from(vector.ns),
        machine_id: Buffer.from(vector.process_id),
        created_at: Buffer.from(vector.created_at),
        data: { machine: lifecycleEvent(vector) },
      });
      expect(out.toBuffer().toString('hex').toUpperCase()).toBe(vector.value_hex);
    }
  });

  test('is understood by an independent reader, also with bytes that are not UTF-8', () => {
    const common = { machine_ns: Buffer.from([0xff]), machine_id: Buffer.alloc(0), created_at: Buffer.from('x') };
    const machines: MachineLifecycleEvent[] = [
      { created: {} },
      { removed: {} },
      { status_changed: { new_status: { working: {} } } },
      { status_changed: { new_status: { failed: {} } } },
      { status_changed: { new_status: { failed: { reason: Buffer.from([0, 0xfe]) } } } },
    ];
    for (const machine of machines) {
      const event: LifecycleEvent = { ...common, data: { machine } };
      const out = new ByteWriter();
      writeLifecycleEvent(out, event);
      expect(decodeLifecycleEvent(out.toBuffer())).toEqual(event as DecodedLifecycleEvent);
    }
  });

  test('omits an absent reason', () => {
    const write = (status: MachineStatus) => {
      const out = new ByteWriter();
      writeMachineStatus(out, status);
      return out.toBuffer().toString('hex');
    };
    expect(write({ failed: { reason: undefined } })).toBe('0c00020000');
    expect(write({ failed: { reason: Buffer.alloc(0) } })).toBe('0c00020b0001000000000000');
    expect(write({ working: {} })).toBe('0c00010000');
  });
});

describe('writeSinkEvent', () => {
  test('is understood by an independent reader at the limits of its integers', () => {
    const limits = [
      [0n, 0],
      [2n ** 63n - 1n, 2 ** 31 - 1],
      [-(2n ** 63n), -(2 ** 31)],
      [2n ** 53n + 1n, undefined],
    ] as const;
    for (const [event_id, format_version] of limits) {
      const event = {
        source_ns: Buffer.from('ns/я'),
        source_id: Buffer.from([0, 255]),
        event_id,
        created_at: Buffer.from('2016-03-22T06:12:27Z'),
        ...(format_version === undefined ? {} : { format_version }),
      };
      const out = new ByteWriter();
      writeSinkEvent(out, { event: { ...event, data: TRUE } });
      expect(decodeSinkEvent(out.toBuffer())).toEqual({ event: { ...event, data: { b: true } } });
      const inner = new ByteWriter();
      writeMachineEvent(inner, { ...event, data: TRUE });
      expect(out.toBuffer()).toEqual(Buffer.concat([Buffer.of(0x0c, 0, 1), inner.toBuffer(), Buffer.of(0)]));
    }
  });
});

describe('decodeSinkEvent of the test support', () => {
  test('refuses truncated and overlong records, and fields that the IDL does not have', () => {
    const vector =
      '0c0001' + '0b000100000001610b000200000001620a000300000000000000010b00040000000163' + '0c00060200020100' + '0000';
    const bytes = Buffer.from(vector, 'hex');
    expect(decodeSinkEvent(bytes).event.event_id).toBe(1n);
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeSinkEvent(bytes.subarray(0, length))).toThrow();
    }
    expect(() => decodeSinkEvent(Buffer.concat([bytes, Buffer.of(0)]))).toThrow('SinkEvent ends at');
    expect(() => decodeSinkEvent(Buffer.from(vector.replace('0a0003', '0a0007'), 'hex'))).toThrow('no field 7');
    expect(() => decodeSinkEvent(Buffer.from(vector.replace('0b0001', '0b0002'), 'hex'))).toThrow('occurs twice');
  });
});
