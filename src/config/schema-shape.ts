/** Describes a valibot schema to the rest of the configuration code, which does not depend on valibot's classes. */

import * as v from 'valibot';

/** Any schema of the configuration. */
export type SchemaNode = v.GenericSchema;

/** A schema without its `optional` and `pipe` wrappers. */
export type Shape = ShapeFacts &
  (
    | { readonly kind: 'fixed'; readonly entries: ReadonlyMap<string, SchemaNode> }
    | { readonly kind: 'named'; readonly placeholder: string; readonly value: SchemaNode }
    | { readonly kind: 'list'; readonly item: SchemaNode }
    | { readonly kind: 'secret'; readonly pem: boolean }
    | { readonly kind: 'scalar' }
  );

interface ShapeFacts {
  readonly meaning: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** The default as written in a file, `required` or `none` */
  readonly defaultText: string;
}

/** Classifies a schema: a mapping with fixed keys, a mapping with names of the user's choice, a list, a secret or a scalar. */
export function shapeOf(schema: SchemaNode): Shape {
  const inner = unwrap(schema);
  const metadata: Readonly<Record<string, unknown>> = v.getMetadata(inner);
  const facts = {
    meaning: v.getDescription(inner) ?? '',
    metadata: { ...metadata, ...(inner.type === 'array' ? { type: 'list of text' } : {}) },
    defaultText: defaultText(schema, metadata),
  };
  const parts = inner as SchemaNode & {
    readonly entries?: Readonly<Record<string, SchemaNode>>;
    readonly value?: SchemaNode;
    readonly item?: SchemaNode;
  };
  if (metadata.secret !== undefined) return { ...facts, kind: 'secret', pem: metadata.secret === 'pem' };
  if (parts.entries !== undefined) return { ...facts, kind: 'fixed', entries: new Map(Object.entries(parts.entries)) };
  if (inner.type === 'map' && parts.value !== undefined) {
    return { ...facts, kind: 'named', placeholder: String(metadata.placeholder), value: parts.value };
  }
  if (parts.item !== undefined) return { ...facts, kind: 'list', item: parts.item };
  return { ...facts, kind: 'scalar' };
}

function unwrap(schema: SchemaNode): SchemaNode {
  return 'wrapped' in schema ? unwrap(schema.wrapped as SchemaNode) : schema;
}

function defaultText(schema: SchemaNode, metadata: Readonly<Record<string, unknown>>): string {
  if (metadata.defaultText !== undefined) return String(metadata.defaultText);
  if (!('wrapped' in schema)) return 'required';
  const value = v.getDefault(schema);
  return value === undefined ? 'none' : `\`${String(value)}\``;
}
