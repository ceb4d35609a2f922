/**
 * Generates src/conversion/thrift/mg-proto.ts, the Thrift binary encoder of the records for Kafka, from the IDL files of the
 * npm package @vality/machinegun-proto. Run as `bun src/build/thrift/codegen.ts`; with `--check` it writes nothing, and its
 * exit code is 0 when the file is up to date.
 *
 * The generator of Apache Thrift does not work here: its JavaScript keeps `map<Value, Value>` in an object, whose keys
 * become strings. The encoder generated here does not encode msgpack.Value: the caller does, directly from ETF.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type BaseTypeName, type IdlDefinition, type IdlField, type IdlType, parseIdl } from './idl.ts';

/** The values of records; everything reachable from them is generated. */
const ROOTS = ['event_sink.SinkEvent', 'lifecycle_sink.LifecycleEvent'];
/** The union that the caller encodes; its field headers are exported for that purpose. */
const EXTERNAL = 'msgpack.Value';

/** Type codes of the binary protocol (thrift-binary-protocol.md, "Struct encoding"). */
const BASE_CODES: Readonly<Record<BaseTypeName, number>> = {
  bool: 0x02,
  byte: 0x03,
  i8: 0x03,
  double: 0x04,
  i16: 0x06,
  i32: 0x08,
  i64: 0x0a,
  string: 0x0b,
  binary: 0x0b,
};
const STRUCT_CODE = 0x0c;
const CONTAINER_CODES = { map: 0x0d, set: 0x0e, list: 0x0f } as const;

/** Base types that the generated encoder supports: type of the property, and the method that writes it. */
const WRITABLE_BASES: Partial<Record<BaseTypeName, { readonly property: string; readonly method: string }>> = {
  string: { property: 'Uint8Array', method: 'sized' },
  binary: { property: 'Uint8Array', method: 'sized' },
  i32: { property: 'number', method: 'i32' },
  i64: { property: 'bigint', method: 'i64' },
};

const LINE_WIDTH = 120;

type FieldSet = Extract<IdlDefinition, { readonly fields: readonly IdlField[] }>;

function fail(detail: string): never {
  throw new Error(`Cannot generate the Thrift codec: ${detail}`);
}

/** All definitions by `file.Name`. */
class Schema {
  readonly #definitions = new Map<string, IdlDefinition>();

  constructor(sources: Readonly<Record<string, string>>) {
    for (const [file, text] of Object.entries(sources)) {
      for (const definition of parseIdl(file, text)) {
        const name = `${file}.${definition.name}`;
        if (this.#definitions.has(name)) fail(`${name} is defined twice`);
        this.#definitions.set(name, definition);
      }
    }
  }

  /** The type itself, with typedefs followed. */
  resolve(type: IdlType, followed = 0): IdlType {
    if (type.kind !== 'ref') return type;
    const definition = this.#definitions.get(type.name) ?? fail(`${type.name} is not defined`);
    if (definition.kind !== 'typedef') return type;
    if (followed > this.#definitions.size) fail(`typedef ${type.name} refers to itself`);
    return this.resolve(definition.type, followed + 1);
  }

  /** The struct or union of that name; throws when it has features that the generated encoder does not support. */
  fieldSet(name: string): FieldSet {
    const definition = this.#definitions.get(name) ?? fail(`${name} is not defined`);
    if (definition.kind !== 'struct' && definition.kind !== 'union') {
      fail(`${name} is of a kind that is not supported: ${definition.kind}`);
    }
    const seen = new Set<number>();
    for (const field of definition.fields) {
      if (field.hasDefaultValue) fail(`${name}.${field.name} has a default value, which is not supported`);
      if (field.id < 1 || field.id > 0x7fff || seen.has(field.id)) fail(`${name}.${field.name} has a bad identifier`);
      seen.add(field.id);
    }
    return definition;
  }

  typeCode(type: IdlType): number {
    const resolved = this.resolve(type);
    if (resolved.kind === 'base') return BASE_CODES[resolved.name];
    if (resolved.kind !== 'ref') return CONTAINER_CODES[resolved.kind];
    this.fieldSet(resolved.name);
    return STRUCT_CODE;
  }

  /** A field header as one 24-bit number: type code, then field identifier. */
  header(field: IdlField): string {
    return hex((this.typeCode(field.type) << 16) | field.id, 6);
  }

  /** Names of the structs and unions that the encoder needs, breadth first from ROOTS. */
  reachable(): string[] {
    const names = new Set<string>();
    const queue = [...ROOTS];
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      if (names.has(name) || name === EXTERNAL) continue;
      names.add(name);
      for (const field of this.fieldSet(name).fields) {
        const type = this.resolve(field.type);
        if (type.kind === 'ref') queue.push(type.name);
      }
    }
    const short = [...names].map(shortName);
    const repeated = short.find((name, index) => short.indexOf(name) !== index);
    if (repeated !== undefined) fail(`two reachable definitions are named ${repeated}`);
    return [...names];
  }
}

function hex(value: number, digits: number): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

function shortName(name: string): string {
  return name.slice(name.indexOf('.') + 1);
}

function describe(type: IdlType): string {
  switch (type.kind) {
    case 'base':
    case 'ref':
      return type.name;
    case 'map':
      return `map<${describe(type.key)}, ${describe(type.value)}>`;
    default:
      return `${type.kind}<${describe(type.element)}>`;
  }
}

function propertyType(schema: Schema, field: IdlField): string {
  const type = schema.resolve(field.type);
  if (type.kind === 'base') return WRITABLE_BASES[type.name]?.property ?? fail(`type ${type.name} is not supported`);
  if (type.kind !== 'ref') fail(`type ${describe(type)} of ${field.name} is not supported`);
  return type.name === EXTERNAL ? 'Writable' : shortName(type.name);
}

function writeStatement(schema: Schema, field: IdlField): string {
  const type = schema.resolve(field.type);
  const header = `out.u24(${schema.header(field)})`;
  const value = `value.${field.name}`;
  if (type.kind === 'base') {
    const { method } = WRITABLE_BASES[type.name] ?? fail(`type ${type.name} is not supported`);
    return `${header}.${method}(${value});`;
  }
  if (type.kind !== 'ref') fail(`type ${describe(type)} of ${field.name} is not supported`);
  if (type.name === EXTERNAL) return `${header};\n${value}.writeTo(out);`;
  return `${header};\nwrite${shortName(type.name)}(out, ${value});`;
}

function indent(text: string, depth: number): string {
  return text.replace(/^/gm, '  '.repeat(depth));
}

function signature(short: string, parameter: string): string {
  const parameters = [`out: ByteWriter`, `${parameter}: ${short}`];
  const line = `export function write${short}(${parameters.join(', ')}): void {`;
  return line.length <= LINE_WIDTH ? line : `export function write${short}(\n  ${parameters.join(',\n  ')},\n): void {`;
}

function generateStruct(schema: Schema, name: string): string {
  const short = shortName(name);
  const { fields } = schema.fieldSet(name);
  const place = `struct ${short} of ${name.slice(0, name.indexOf('.'))}.thrift`;
  const properties = fields.map((field) => {
    const optional = field.requiredness === 'optional';
    const type = `${propertyType(schema, field)}${optional ? ' | undefined' : ''}`;
    const what = `${field.id}: ${field.requiredness} ${describe(field.type)}`;
    return `  /** ${what} */\n  readonly ${field.name}${optional ? '?' : ''}: ${type};\n`;
  });
  const declared =
    fields.length === 0
      ? `/** ${place}: has no fields. */\nexport type ${short} = Readonly<Record<string, never>>;\n`
      : `/** ${place}. */\nexport interface ${short} {\n${properties.join('')}}\n`;
  const statements = fields.map((field) => {
    const statement = writeStatement(schema, field);
    if (field.requiredness !== 'optional') return `${indent(statement, 1)}\n`;
    return `  if (value.${field.name} !== undefined) {\n${indent(statement, 2)}\n  }\n`;
  });
  const parameter = fields.length === 0 ? '_value' : 'value';
  return `${declared}
/** Writes ${place}, stop byte included. */
${signature(short, parameter)}
${statements.join('')}  out.u8(FIELD_STOP);
}
`;
}

function generateUnion(schema: Schema, name: string): string {
  const short = shortName(name);
  const { fields } = schema.fieldSet(name);
  if (fields.length === 0) fail(`union ${name} has no fields`);
  const place = `union ${short} of ${name.slice(0, name.indexOf('.'))}.thrift`;
  const variants = fields.map((field) => `{ readonly ${field.name}: ${propertyType(schema, field)} }`);
  const declared =
    variants.length === 1
      ? `export type ${short} = ${variants[0]};`
      : `export type ${short} =\n${variants.map((variant) => `  | ${variant}`).join('\n')};`;
  let body = '';
  fields.forEach((field, index) => {
    const statement = writeStatement(schema, field);
    const last = index === fields.length - 1;
    if (fields.length === 1) body = `${indent(statement, 1)}\n`;
    else if (index === 0) body = `  if ('${field.name}' in value) {\n${indent(statement, 2)}\n`;
    else if (last) body += `  } else {\n${indent(statement, 2)}\n  }\n`;
    else body += `  } else if ('${field.name}' in value) {\n${indent(statement, 2)}\n`;
  });
  return `/** ${place}: exactly one of its fields. */
${declared}

/** Writes ${place}, stop byte included. */
${signature(short, 'value')}
${body}  out.u8(FIELD_STOP);
}
`;
}

/** Constants for the caller that encodes the external union: the header before the contents of each variant. */
function generateExternal(schema: Schema): string {
  const prefix = shortName(EXTERNAL).toUpperCase();
  const definition = schema.fieldSet(EXTERNAL);
  if (definition.kind !== 'union') fail(`${EXTERNAL} is not a union`);
  const lines = definition.fields.map((field) => {
    const constant = `${prefix}_${field.name.toUpperCase()}`;
    const type = schema.resolve(field.type);
    let text = `/** ${field.id}: ${describe(type)} ${field.name} */\nexport const ${constant} = ${schema.header(field)};\n`;
    if (type.kind === 'map') {
      const codes = (schema.typeCode(type.key) << 8) | schema.typeCode(type.value);
      text += `/** Type of the keys of ${field.name}, then of its values: two bytes before the i32 count */\n`;
      text += `export const ${constant}_TYPES = ${hex(codes, 4)};\n`;
    } else if (type.kind === 'list') {
      text += `/** Type of the elements of ${field.name}: one byte before the i32 count */\n`;
      text += `export const ${constant}_TYPE = ${hex(schema.typeCode(type.element), 2)};\n`;
    } else if (type.kind === 'ref' && schema.fieldSet(type.name).fields.length > 0) {
      fail(`${EXTERNAL}.${field.name} is not an empty struct`);
    }
    return text;
  });
  return `// Field headers of union ${EXTERNAL}: the type byte, then the field identifier, as one 24-bit number.
${lines.join('')}`;
}

/** Text of src/conversion/thrift/mg-proto.ts. `sources` are the IDL files: name without `.thrift` -> text. */
export function generate(sources: Readonly<Record<string, string>>): string {
  const schema = new Schema(sources);
  const parts = schema.reachable().map((name) => {
    return schema.fieldSet(name).kind === 'union' ? generateUnion(schema, name) : generateStruct(schema, name);
  });
  return `/**
 * GENERATED by src/build/thrift/codegen.ts from the IDL of @vality/machinegun-proto: do not edit, run \`make codegen\`
 * (\`bun src/build/thrift/codegen.ts\`).
 *
 * Thrift binary protocol (strict types, no message envelope) of the records for Kafka. Strings are bytes and are never
 * decoded. https://github.com/apache/thrift/blob/master/doc/specs/thrift-binary-protocol.md
 */
import type { ByteWriter } from '../../bytes/writer.ts';

/** A ${EXTERNAL} that writes its own encoding: the one field of the union, and the stop byte. */
export interface Writable {
  writeTo(out: ByteWriter): void;
}

/** Ends every struct and union. */
export const FIELD_STOP = 0x00;

${generateExternal(schema)}
${parts.join('\n')}`;
}

/** The IDL files of the installed package: name without `.thrift` -> text. */
export function readIdlSources(): Record<string, string> {
  const folder = new URL('../../../node_modules/@vality/machinegun-proto/proto/', import.meta.url);
  const sources: Record<string, string> = {};
  for (const file of readdirSync(folder).sort()) {
    if (file.endsWith('.thrift')) {
      sources[file.slice(0, -'.thrift'.length)] = readFileSync(new URL(file, folder), 'utf8');
    }
  }
  return sources;
}

if (import.meta.main) {
  const target = new URL('../../conversion/thrift/mg-proto.ts', import.meta.url);
  const text = generate(readIdlSources());
  if (process.argv.includes('--check')) process.exitCode = readFileSync(target, 'utf8') === text ? 0 : 1;
  else writeFileSync(target, text);
}
