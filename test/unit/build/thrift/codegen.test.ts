import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { generate, readIdlSources } from '../../../../src/build/thrift/codegen.ts';
import { parseIdl } from '../../../../src/build/thrift/idl.ts';
import { MalformedError } from '../../../../src/errors.ts';

const sources = readIdlSources();

/** The IDL with the text `from`, which it must contain, replaced by `to`. */
function changed(file: string, from: string, to: string): Record<string, string> {
  const text = sources[file]!;
  expect(text).toContain(from);
  return { ...sources, [file]: text.replace(from, to) };
}

describe('generate', () => {
  test('gives the committed src/conversion/thrift/mg-proto.ts (run `make codegen` when this fails)', () => {
    const committed = readFileSync(new URL('../../../../src/conversion/thrift/mg-proto.ts', import.meta.url), 'utf8');
    expect(generate(sources)).toBe(committed);
  });

  test('keeps its lines within the width of the project, without trailing space', () => {
    for (const line of generate(sources).split('\n')) {
      expect(line.length).toBeLessThanOrEqual(120);
      expect(line).toBe(line.trimEnd());
    }
  });

  test('takes field identifiers and types from the IDL', () => {
    expect(generate(changed('event_sink', '3: required base.EventID', '9: required base.EventID'))).toContain(
      'out.u24(0x0a0009).i64(value.event_id);',
    );
    expect(generate(changed('base', 'typedef i64 EventID', 'typedef i32 EventID'))).toContain(
      'out.u24(0x080003).i32(value.event_id);',
    );
    expect(generate(changed('msgpack', '5: string str', '15: string str'))).toContain('VALUE_STR = 0x0b000f;');
    expect(generate(changed('msgpack', 'typedef list<Value> Array', 'typedef list<string> Array'))).toContain(
      'VALUE_ARR_TYPE = 0x0b;',
    );
    expect(generate(changed('event_sink', '5: optional i32', '5: required i32'))).not.toContain(
      'if (value.format_version',
    );
  });

  test.each([
    ['base', 'typedef string Timestamp', 'typedef double Timestamp', 'type double is not supported'],
    ['base', 'typedef string Timestamp', 'typedef list<string> Timestamp', 'type list<string> of created_at is not'],
    ['base', 'typedef string Timestamp', 'typedef Nowhere Timestamp', 'base.Nowhere is not defined'],
    ['base', 'typedef string Timestamp', 'typedef Timestamp Timestamp', 'refers to itself'],
    ['base', 'typedef string Timestamp', 'typedef BoundType Timestamp', 'of a kind that is not supported: enum'],
    ['base', 'typedef string ID', 'typedef InvalidRequest ID', 'of a kind that is not supported: exception'],
    ['base', 'typedef string ID', 'typedef string ID typedef i32 ID', 'base.ID is defined twice'],
    ['event_sink', '5: optional i32             format_version', '5: optional i32 v = 1', 'v has a default value'],
    ['event_sink', '5: optional i32', '4: optional i32', 'format_version has a bad identifier'],
    ['event_sink', 'union SinkEvent', 'union OtherEvent', 'event_sink.SinkEvent is not defined'],
    ['msgpack', 'struct Nil {}', 'struct Nil { 1: string x }', 'msgpack.Value.nl is not an empty struct'],
    ['lifecycle_sink', 'MachineLifecycleRemovedEvent', 'MachineStatus', 'two reachable definitions are named'],
  ])('refuses what it does not support: %s with %p as %p', (file, from, to, message) => {
    const idl = to === 'MachineStatus' ? collision() : changed(file, from, to);
    expect(() => generate(idl)).toThrow(message);
  });

  /** IDL with two reachable definitions of one name, in two files. */
  function collision(): Record<string, string> {
    const idl = changed(
      'lifecycle_sink',
      'typedef state_processing.MachineStatus MachineStatus;',
      'struct MachineStatus {}',
    );
    const text = idl.lifecycle_sink!.replace(
      '3: MachineLifecycleRemovedEvent       removed',
      '3: MachineLifecycleRemovedEvent removed 4: state_processing.MachineStatus status 5: MachineStatus other',
    );
    return { ...idl, lifecycle_sink: text };
  }
});

describe('parseIdl', () => {
  test('reads every file of the package', () => {
    expect(Object.keys(sources).sort()).toEqual([
      'base',
      'event_sink',
      'lifecycle_sink',
      'msgpack',
      'state_processing',
    ]);
    for (const [file, text] of Object.entries(sources)) expect(parseIdl(file, text).length).toBeGreaterThan(0);
  });

  test('reads each kind of definition, comments and separators', () => {
    const text = `
      # comment
      namespace * x
      include "other.thrift" // comment
      typedef map<string, list<other.T>> M;
      struct S { 1: required i64 a, 2: optional set<M> b; 3: bool c = 1 /* comment */ 4: M d = {"a": [1]} }
      union U { 1: S s }
      enum E { A = 1, B }
      service V extends W { void f(1: S s) throws (1: U u) }
    `;
    const base = (name: string) => ({ kind: 'base', name }) as const;
    const ref = (name: string) => ({ kind: 'ref', name }) as const;
    const field = { requiredness: 'default', hasDefaultValue: false } as const;
    expect(parseIdl('f', text)).toEqual([
      {
        kind: 'typedef',
        name: 'M',
        type: { kind: 'map', key: base('string'), value: { kind: 'list', element: ref('other.T') } },
      } as never,
      {
        kind: 'struct',
        name: 'S',
        fields: [
          { ...field, id: 1, name: 'a', requiredness: 'required', type: base('i64') },
          { ...field, id: 2, name: 'b', requiredness: 'optional', type: { kind: 'set', element: ref('f.M') } },
          { ...field, id: 3, name: 'c', type: base('bool'), hasDefaultValue: true },
          { ...field, id: 4, name: 'd', type: ref('f.M'), hasDefaultValue: true },
        ],
      } as never,
      { kind: 'union', name: 'U', fields: [{ ...field, id: 1, name: 's', type: ref('f.S') }] } as never,
      { kind: 'enum', name: 'E' } as never,
      { kind: 'service', name: 'V' } as never,
    ]);
  });

  test.each([
    'struct S {',
    'struct S { 1 i32 a }',
    'struct S { i32 a }',
    'struct S { 1: i32 }',
    'struct S { 1: map<i32> a }',
    'struct S { 1: i32 a (annotated = "1") }',
    'typedef i32',
    'senum X { "a" }',
    'service S { void f(',
    'struct S { 1: i32 a } ~',
  ])('refuses %p with its place', (text) => {
    expect(() => parseIdl('f', text)).toThrow(MalformedError);
  });
});
