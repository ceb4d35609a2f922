/**
 * Reads values of records with the TBinaryProtocol of the `thrift` package, field by field as the IDL numbers them: an
 * implementation that shares nothing with the encoder under test. Texts are Buffers, i64 is bigint, a map is an array of
 * pairs (its keys are Values).
 */
import { TBinaryProtocol, TFramedTransport, Thrift } from 'thrift';
import type { Value } from './etf.ts';

/** event_sink.thrift, union SinkEvent */
export interface DecodedSinkEvent {
  readonly event: {
    readonly source_ns: Buffer;
    readonly source_id: Buffer;
    readonly event_id: bigint;
    readonly created_at: Buffer;
    /** Absent when the field was not written */
    readonly format_version?: number;
    readonly data: Value;
  };
}

/** state_processing.thrift, union MachineStatus */
export type DecodedMachineStatus =
  | { readonly working: Record<string, never> }
  | { readonly failed: { readonly reason?: Buffer } };

/** lifecycle_sink.thrift, struct LifecycleEvent */
export interface DecodedLifecycleEvent {
  readonly machine_ns: Buffer;
  readonly machine_id: Buffer;
  readonly created_at: Buffer;
  readonly data: {
    readonly machine:
      | { readonly created: Record<string, never> }
      | { readonly status_changed: { readonly new_status: DecodedMachineStatus } }
      | { readonly removed: Record<string, never> };
  };
}

/** The methods of TBinaryProtocol that are used here; the published types of the package are incomplete. */
interface Protocol {
  readStructBegin(): unknown;
  readFieldBegin(): { readonly ftype: number; readonly fid: number };
  readFieldEnd(): void;
  readMapBegin(): { readonly ktype: number; readonly vtype: number; readonly size: number };
  readListBegin(): { readonly etype: number; readonly size: number };
  readBool(): boolean;
  readI32(): number;
  readI64(): { readonly buffer: Uint8Array; readonly offset: number };
  readDouble(): number;
  readBinary(): Buffer;
}

/** One field: its Thrift type, its name, and its reader. */
interface FieldReader {
  readonly type: number;
  readonly name: string;
  readonly required?: boolean;
  readonly read: (input: Protocol) => unknown;
}

const { Type } = Thrift;
const text = (input: Protocol) => Buffer.from(input.readBinary());

function i64(input: Protocol): bigint {
  const { buffer, offset } = input.readI64();
  return Buffer.from(buffer).readBigInt64BE(offset);
}

function readFields(input: Protocol, what: string, fields: Readonly<Record<number, FieldReader>>): object {
  const result: Record<string, unknown> = {};
  input.readStructBegin();
  for (;;) {
    const { ftype, fid } = input.readFieldBegin();
    if (ftype === Type.STOP) return result;
    const field = fields[fid];
    if (field === undefined) throw new Error(`${what} has no field ${fid}`);
    if (field.type !== ftype) throw new Error(`${what}.${field.name} has type ${ftype}`);
    if (field.name in result) throw new Error(`${what}.${field.name} occurs twice`);
    result[field.name] = field.read(input);
    input.readFieldEnd();
  }
}

function readStruct<T>(input: Protocol, what: string, fields: Readonly<Record<number, FieldReader>>): T {
  const result = readFields(input, what, fields);
  for (const field of Object.values(fields)) {
    if (field.required !== false && !(field.name in result)) throw new Error(`${what}.${field.name} is missing`);
  }
  return result as T;
}

function readUnion<T>(input: Protocol, what: string, fields: Readonly<Record<number, FieldReader>>): T {
  const result = readFields(input, what, fields);
  if (Object.keys(result).length !== 1) throw new Error(`${what} does not hold exactly one field`);
  return result as T;
}

const empty = (what: string) => (input: Protocol) => readStruct<Record<string, never>>(input, what, {});

const VALUE_FIELDS: Readonly<Record<number, FieldReader>> = {
  1: { type: Type.STRUCT, name: 'nl', read: empty('Nil') },
  2: { type: Type.BOOL, name: 'b', read: (input) => input.readBool() },
  3: { type: Type.I64, name: 'i', read: i64 },
  4: { type: Type.DOUBLE, name: 'flt', read: (input) => input.readDouble() },
  5: { type: Type.STRING, name: 'str', read: text },
  6: { type: Type.STRING, name: 'bin', read: text },
  7: { type: Type.MAP, name: 'obj', read: readPairs },
  8: { type: Type.LIST, name: 'arr', read: readElements },
};

function readPairs(input: Protocol): [Value, Value][] {
  const { ktype, vtype, size } = input.readMapBegin();
  if (ktype !== Type.STRUCT || vtype !== Type.STRUCT) throw new Error('obj does not map Value to Value');
  return Array.from({ length: size }, (): [Value, Value] => [readValue(input), readValue(input)]);
}

function readElements(input: Protocol): Value[] {
  const { etype, size } = input.readListBegin();
  if (etype !== Type.STRUCT) throw new Error('arr does not hold Values');
  return Array.from({ length: size }, () => readValue(input));
}

function readValue(input: Protocol): Value {
  return readUnion(input, 'Value', VALUE_FIELDS);
}

const MACHINE_EVENT_FIELDS: Readonly<Record<number, FieldReader>> = {
  1: { type: Type.STRING, name: 'source_ns', read: text },
  2: { type: Type.STRING, name: 'source_id', read: text },
  3: { type: Type.I64, name: 'event_id', read: i64 },
  4: { type: Type.STRING, name: 'created_at', read: text },
  5: { type: Type.I32, name: 'format_version', required: false, read: (input) => input.readI32() },
  6: { type: Type.STRUCT, name: 'data', read: readValue },
};

function readMachineStatus(input: Protocol): DecodedMachineStatus {
  const failed: Readonly<Record<number, FieldReader>> = {
    1: { type: Type.STRING, name: 'reason', required: false, read: text },
  };
  return readUnion(input, 'MachineStatus', {
    1: { type: Type.STRUCT, name: 'working', read: empty('MachineStatusWorking') },
    2: { type: Type.STRUCT, name: 'failed', read: (inner) => readStruct(inner, 'MachineStatusFailed', failed) },
  });
}

function readStatusChanged(input: Protocol): object {
  return readStruct(input, 'MachineLifecycleStatusChangedEvent', {
    1: { type: Type.STRUCT, name: 'new_status', read: readMachineStatus },
  });
}

function readMachineLifecycleEvent(input: Protocol): object {
  return readUnion(input, 'MachineLifecycleEvent', {
    1: { type: Type.STRUCT, name: 'created', read: empty('MachineLifecycleCreatedEvent') },
    2: { type: Type.STRUCT, name: 'status_changed', read: readStatusChanged },
    3: { type: Type.STRUCT, name: 'removed', read: empty('MachineLifecycleRemovedEvent') },
  });
}

function decode<T>(bytes: Buffer, what: string, read: (input: Protocol) => T): T {
  // The transport allows reads into the next frame, so its position is compared with the length.
  const transport = new TFramedTransport(Buffer.from(bytes)) as TFramedTransport & { readPos: number };
  const result = read(new TBinaryProtocol(transport) as unknown as Protocol);
  if (transport.readPos !== bytes.length) {
    throw new Error(`${what} ends at ${transport.readPos} of ${bytes.length} bytes`);
  }
  return result;
}

/** The value of a record of an eventsink topic; throws unless it is exactly one SinkEvent. */
export function decodeSinkEvent(bytes: Buffer): DecodedSinkEvent {
  return decode(bytes, 'SinkEvent', (input) =>
    readUnion(input, 'SinkEvent', {
      1: { type: Type.STRUCT, name: 'event', read: (inner) => readStruct(inner, 'MachineEvent', MACHINE_EVENT_FIELDS) },
    }),
  );
}

/** The value of a record of a lifecycle topic; throws unless it is exactly one LifecycleEvent. */
export function decodeLifecycleEvent(bytes: Buffer): DecodedLifecycleEvent {
  return decode(bytes, 'LifecycleEvent', (input) =>
    readStruct(input, 'LifecycleEvent', {
      1: { type: Type.STRING, name: 'machine_ns', read: text },
      2: { type: Type.STRING, name: 'machine_id', read: text },
      3: { type: Type.STRING, name: 'created_at', read: text },
      4: {
        type: Type.STRUCT,
        name: 'data',
        read: (inner) =>
          readUnion(inner, 'LifecycleEventData', {
            1: { type: Type.STRUCT, name: 'machine', read: readMachineLifecycleEvent },
          }),
      },
    }),
  );
}

/** The encoding of one msgpack.Value by itself. */
export function decodeValue(bytes: Buffer): Value {
  return decode(bytes, 'Value', readValue);
}
