/**
 * A record as text: exact, to compare it (`content`), and short, for people (`summary`). Both sides of a comparison, rows that
 * were written and records that were read, get their text here.
 */

import type { KafkaRecord } from '../kafka/topic-reader.ts';
import type { Value } from './etf.ts';
import { decodeLifecycleEvent, decodeSinkEvent } from './thrift-reader.ts';
import type { ReadRecord } from './verdict.ts';

/** A row of the events table without its time. */
export interface EventText {
  readonly namespace: string;
  readonly processId: string;
  readonly eventId: number | bigint;
  readonly formatVersion: number | undefined;
  readonly data: Value;
}

/** A lifecycle change of a process without its time. */
export interface LifecycleText {
  readonly namespace: string;
  readonly processId: string;
  readonly change: 'created' | 'removed' | 'working' | 'failed';
  /** Only with `failed` */
  readonly reason?: string | undefined;
}

/** The content of an event's record. */
export function eventContent({ namespace, processId, eventId, formatVersion, data }: EventText): string {
  return JSON.stringify(['event', namespace, processId, String(eventId), formatVersion ?? null, exactValue(data)]);
}

/** The content of a lifecycle record. */
export function lifecycleContent({ namespace, processId, change, reason }: LifecycleText): string {
  return JSON.stringify([change, namespace, processId, reason ?? null]);
}

/** A record that was read, with its text. */
export interface DescribedRecord extends ReadRecord {
  /** For people: `event 3 v1 {...}`, `failed: timeout`, or why decoding failed */
  readonly summary: string;
}

/** Decodes one record of an eventsink or lifecycle topic. */
export function describeRecord(record: KafkaRecord, kind: 'eventsink' | 'lifecycle'): DescribedRecord {
  const { topic, partition, offset, key } = record;
  try {
    const text = kind === 'eventsink' ? describeEvent(record.value) : describeLifecycle(record.value);
    return { topic, partition, offset, key, ...text };
  } catch (error) {
    const summary = `cannot be decoded: ${error instanceof Error ? error.message : String(error)}`;
    return { topic, partition, offset, key, content: undefined, createdAt: Number.NaN, summary };
  }
}

interface Described {
  readonly content: string;
  readonly createdAt: number;
  readonly summary: string;
}

function describeEvent(bytes: Buffer): Described {
  const { event } = decodeSinkEvent(bytes);
  const { event_id: eventId, format_version: formatVersion, data } = event;
  const namespace = event.source_ns.toString();
  const processId = event.source_id.toString();
  const version = formatVersion === undefined ? '' : ` v${formatVersion}`;
  return {
    content: eventContent({ namespace, processId, eventId, formatVersion, data }),
    createdAt: parseTimestamp(event.created_at),
    summary: `event ${eventId}${version} ${briefValue(data)}`,
  };
}

function describeLifecycle(bytes: Buffer): Described {
  const event = decodeLifecycleEvent(bytes);
  const namespace = event.machine_ns.toString();
  const processId = event.machine_id.toString();
  const { change, reason } = lifecycleChange(event.data.machine);
  return {
    content: lifecycleContent({ namespace, processId, change, reason }),
    createdAt: parseTimestamp(event.created_at),
    summary: reason === undefined ? change : `${change}: ${reason}`,
  };
}

type LifecycleMachine = ReturnType<typeof decodeLifecycleEvent>['data']['machine'];

function lifecycleChange(machine: LifecycleMachine): Pick<LifecycleText, 'change' | 'reason'> {
  if ('created' in machine) return { change: 'created' };
  if ('removed' in machine) return { change: 'removed' };
  const status = machine.status_changed.new_status;
  if ('working' in status) return { change: 'working' };
  return { change: 'failed', reason: status.failed.reason?.toString() };
}

/** Seconds since 1970 of exactly `2016-03-22T06:12:27Z`, otherwise NaN. */
export function parseTimestamp(text: Buffer): number {
  const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
  return form.test(text.toString('latin1')) ? Date.parse(text.toString('latin1')) / 1000 : Number.NaN;
}

/** A Value in a form that is equal only for equal Values: bytes in hex, doubles as their bits, entries in their order. */
export function exactValue(value: Value): string {
  if ('nl' in value) return 'nl';
  if ('b' in value) return String(value.b);
  if ('i' in value) return `i${value.i}`;
  if ('flt' in value) {
    const bits = Buffer.alloc(8);
    bits.writeDoubleBE(value.flt);
    return `f${bits.toString('hex')}`;
  }
  if ('str' in value) return `s${value.str.toString('hex')}`;
  if ('bin' in value) return `x${value.bin.toString('hex')}`;
  if ('obj' in value)
    return `{${value.obj.map(([key, entry]) => `${exactValue(key)}:${exactValue(entry)}`).join(',')}}`;
  return `[${value.arr.map(exactValue).join(',')}]`;
}

/** A Value as JSON would show it, bytes as their size and first bytes. */
export function briefValue(value: Value): string {
  if ('nl' in value) return 'null';
  if ('b' in value) return String(value.b);
  if ('i' in value) return String(value.i);
  if ('flt' in value) return Number.isInteger(value.flt) ? value.flt.toExponential() : String(value.flt);
  if ('str' in value) return JSON.stringify(value.str.toString());
  if ('bin' in value) {
    const { length } = value.bin;
    return `<${length} bytes${length === 0 ? '' : ` ${value.bin.toString('hex', 0, 4)}${length > 4 ? '..' : ''}`}>`;
  }
  if ('obj' in value)
    return `{${value.obj.map(([key, entry]) => `${briefValue(key)}: ${briefValue(entry)}`).join(', ')}}`;
  return `[${value.arr.map(briefValue).join(', ')}]`;
}
