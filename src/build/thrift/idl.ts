/**
 * Parser of the part of the Thrift interface definition language that describes data types. Only the code generator uses it.
 * Grammar: https://thrift.apache.org/docs/idl
 */
import { MalformedError } from '../../errors.ts';

/** Types of the language itself. */
const BASE_TYPES = ['bool', 'byte', 'i8', 'i16', 'i32', 'i64', 'double', 'string', 'binary'] as const;
/** Name of a type of the language itself. */
export type BaseTypeName = (typeof BASE_TYPES)[number];

/** A type as it is written; `ref` names a definition as `file.Name`, always with its file. */
export type IdlType =
  | { readonly kind: 'base'; readonly name: BaseTypeName }
  | { readonly kind: 'list' | 'set'; readonly element: IdlType }
  | { readonly kind: 'map'; readonly key: IdlType; readonly value: IdlType }
  | { readonly kind: 'ref'; readonly name: string };

/** A field of a struct, union or exception. */
export interface IdlField {
  readonly id: number;
  readonly name: string;
  readonly requiredness: 'required' | 'optional' | 'default';
  readonly type: IdlType;
  readonly hasDefaultValue: boolean;
}

/** A top-level definition. Of enums and services, which the generator does not use, only the name is read. */
export type IdlDefinition =
  | { readonly kind: 'struct' | 'union' | 'exception'; readonly name: string; readonly fields: readonly IdlField[] }
  | { readonly kind: 'typedef'; readonly name: string; readonly type: IdlType }
  | { readonly kind: 'enum' | 'service'; readonly name: string };

interface Token {
  readonly text: string;
  readonly offset: number;
}

const TOKEN =
  /\/\/[^\n]*|#[^\n]*|\/\*[\s\S]*?\*\/|\s+|("[^"]*"|'[^']*'|[A-Za-z_][\w.]*|[+-]?\d[\w.+-]*|[{}()[\]<>,;:=*&])/gy;

function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  let at = 0;
  while (at < text.length) {
    const match = TOKEN.exec(text);
    if (match === null) throw new MalformedError('Thrift IDL', at, 'unknown character');
    if (match[1] !== undefined) tokens.push({ text: match[1], offset: at });
    at = TOKEN.lastIndex;
  }
  tokens.push({ text: '', offset: text.length });
  return tokens;
}

const CLOSING: Readonly<Record<string, string>> = { '{': '}', '(': ')', '[': ']' };

class IdlParser {
  readonly #file: string;
  readonly #tokens: readonly Token[];
  #next = 0;

  constructor(file: string, text: string) {
    this.#file = file;
    this.#tokens = tokenize(text);
  }

  parse(): IdlDefinition[] {
    const definitions: IdlDefinition[] = [];
    while (this.#peek() !== '') {
      const definition = this.#definition();
      if (definition !== undefined) definitions.push(definition);
    }
    return definitions;
  }

  #definition(): IdlDefinition | undefined {
    const construct = this.#take();
    switch (construct) {
      case 'include': // Names of another file carry the name of that file.
        this.#take();
        return undefined;
      case 'namespace':
        this.#take();
        this.#take();
        return undefined;
      case 'typedef': {
        const type = this.#type();
        const name = this.#identifier();
        this.#separator();
        return { kind: 'typedef', name, type };
      }
      case 'struct':
      case 'union':
      case 'exception':
        return { kind: construct, name: this.#identifier(), fields: this.#fields() };
      case 'enum': {
        const name = this.#identifier();
        this.#skipBlock('{');
        return { kind: 'enum', name };
      }
      case 'service': {
        const name = this.#identifier();
        if (this.#peek() === 'extends') this.#next += 2;
        this.#skipBlock('{');
        return { kind: 'service', name };
      }
      default:
        this.#next--;
        return this.#fail(`unknown construct '${construct}'`);
    }
  }

  #fields(): IdlField[] {
    const fields: IdlField[] = [];
    this.#expect('{');
    while (this.#peek() !== '}') {
      const id = this.#take();
      if (!/^\d+$/.test(id)) this.#fail('field without an identifier');
      this.#expect(':');
      let requiredness: IdlField['requiredness'] = 'default';
      const word = this.#peek();
      if (word === 'required' || word === 'optional') {
        requiredness = word;
        this.#next++;
      }
      const type = this.#type();
      const name = this.#identifier();
      const hasDefaultValue = this.#peek() === '=';
      if (hasDefaultValue) this.#skipDefaultValue();
      this.#separator();
      fields.push({ id: Number(id), name, requiredness, type, hasDefaultValue });
    }
    this.#expect('}');
    return fields;
  }

  #type(): IdlType {
    const name = this.#identifier();
    const base = BASE_TYPES.find((candidate) => candidate === name);
    if (base !== undefined) return { kind: 'base', name: base };
    if (name === 'list' || name === 'set') {
      this.#expect('<');
      const element = this.#type();
      this.#expect('>');
      return { kind: name, element };
    }
    if (name === 'map') {
      this.#expect('<');
      const key = this.#type();
      this.#expect(',');
      const value = this.#type();
      this.#expect('>');
      return { kind: 'map', key, value };
    }
    return { kind: 'ref', name: name.includes('.') ? name : `${this.#file}.${name}` };
  }

  #skipDefaultValue(): void {
    this.#expect('=');
    if (this.#peek() in CLOSING) this.#skipBlock(this.#peek());
    else this.#take();
  }

  /** Skips a bracketed block with everything in it. */
  #skipBlock(open: string): void {
    this.#expect(open);
    const closing = CLOSING[open];
    while (this.#peek() !== closing) {
      if (this.#peek() === '') this.#fail(`'${closing}' expected`);
      if (this.#peek() in CLOSING) this.#skipBlock(this.#peek());
      else this.#next++;
    }
    this.#next++;
  }

  #separator(): void {
    if (this.#peek() === ',' || this.#peek() === ';') this.#next++;
  }

  #identifier(): string {
    const name = this.#take();
    if (!/^[A-Za-z_]/.test(name)) {
      this.#next--;
      this.#fail('name expected');
    }
    return name;
  }

  #expect(text: string): void {
    if (this.#peek() !== text) this.#fail(`'${text}' expected`);
    this.#next++;
  }

  #peek(): string {
    return this.#tokens[this.#next]?.text ?? '';
  }

  #take(): string {
    const text = this.#peek();
    if (text === '') this.#fail('unexpected end of file');
    this.#next++;
    return text;
  }

  #fail(detail: string): never {
    throw new MalformedError(`Thrift IDL ${this.#file}`, this.#tokens[this.#next]?.offset ?? 0, detail);
  }
}

/**
 * Definitions of one IDL file. `file` is its name without `.thrift`, as other files refer to it.
 * @throws MalformedError with the offset of text that is not IDL, or a construct that this parser does not know, such as
 *   annotations
 */
export function parseIdl(file: string, text: string): IdlDefinition[] {
  return new IdlParser(file, text).parse();
}
