/** The golden vectors of test/fixtures/vectors, and helpers to compare a record with them. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { Value } from './etf.ts';

/** A row of events, and the record of the Erlang service for it. */
export interface EventVector {
  readonly ns: string;
  readonly process_id: string;
  readonly event_id: number;
  /** `2024-02-29 23:59:59.999999+00` */
  readonly timestamp: string;
  readonly format_version: number | null;
  readonly payload_hex: string;
  readonly key: string;
  readonly phash2: number;
  readonly value_hex: string;
}

/** A change of processes, and the record of the Erlang service for it. */
export interface LifecycleVector {
  readonly ns: string;
  readonly process_id: string;
  readonly event: 'created' | 'failed' | 'repaired' | 'removed';
  readonly reason: string | null;
  readonly created_at: string;
  readonly key: string;
  readonly phash2: number;
  readonly value_hex: string;
}

/** A binary, its hash, and its partition of 3 and of 64. */
export interface Phash2Vector {
  readonly key_hex: string;
  readonly phash2: number;
  readonly partition_of_3: number;
  readonly partition_of_64: number;
}

/** A payload that must be refused. */
export interface InvalidVector {
  readonly why: string;
  readonly payload_hex: string;
}

function readLines<T>(name: string): T[] {
  const text = gunzipSync(readFileSync(new URL(`../../fixtures/vectors/${name}.jsonl.gz`, import.meta.url))).toString();
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** events.jsonl.gz */
export const readEventVectors = () => readLines<EventVector>('events');
/** lifecycle.jsonl.gz */
export const readLifecycleVectors = () => readLines<LifecycleVector>('lifecycle');
/** phash2.jsonl.gz */
export const readPhash2Vectors = () => readLines<Phash2Vector>('phash2');
/** invalid.jsonl.gz */
export const readInvalidVectors = () => readLines<InvalidVector>('invalid');

/** `2024-02-29 23:59:59.999999+00` in PostgreSQL's binary format: microseconds since 2000-01-01 UTC. */
export function timestampMicros(text: string): bigint {
  const match = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?\+00$/.exec(text);
  if (match === null) throw new Error(`Cannot parse timestamp: '${text}'`);
  const seconds = BigInt(Date.parse(`${match[1]}T${match[2]}Z`)) / 1000n;
  return (seconds - 946_684_800n) * 1_000_000n + BigInt((match[3] ?? '').padEnd(6, '0'));
}

/** Up to so many entries, Erlang keeps a map in order. */
const MAX_ORDERED_ENTRIES = 32;

/** The Value with the entries sorted in each obj that Erlang leaves unordered. */
export function withoutHashOrder(value: Value): Value {
  if ('arr' in value) return { arr: value.arr.map(withoutHashOrder) };
  if (!('obj' in value)) return value;
  const entries = value.obj.map(([key, entry]) => [withoutHashOrder(key), withoutHashOrder(entry)] as const);
  if (entries.length <= MAX_ORDERED_ENTRIES) return { obj: entries };
  const rank = ([key]: readonly [Value, Value]) => Bun.inspect(key, { depth: 100 });
  return { obj: entries.sort((left, right) => (rank(left) < rank(right) ? -1 : 1)) };
}

/** True when an obj within has more entries than Erlang keeps in order. */
export function hasHashOrder(value: Value): boolean {
  if ('arr' in value) return value.arr.some(hasHashOrder);
  if (!('obj' in value)) return false;
  return value.obj.length > MAX_ORDERED_ENTRIES || value.obj.some((entry) => entry.some(hasHashOrder));
}
