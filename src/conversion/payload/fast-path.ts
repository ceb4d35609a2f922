/**
 * The fast path for payloads as progressor writes them: one loop over plain arrays, without objects, and without calls
 * except for copies of long texts. An event of 270 bytes takes 0.4 us here and 1.3 us in the decoder
 * (`make bench-stages`).
 *
 * It knows the usual forms only and reports no errors: at anything else, valid or not, it gives up, and the decoder
 * converts the payload from its beginning. So only the decoder decides what is valid.
 */
import type { ByteWriter } from '../../bytes/writer.ts';
import {
  FIELD_STOP,
  VALUE_ARR,
  VALUE_ARR_TYPE,
  VALUE_B,
  VALUE_BIN,
  VALUE_FLT,
  VALUE_I,
  VALUE_NL,
  VALUE_OBJ,
  VALUE_OBJ_TYPES,
  VALUE_STR,
} from '../thrift/mg-proto.ts';
import { findMapKeyFault } from './map-keys.ts';
import { MAX_FAST_PATH_DEPTH } from './nesting-limits.ts';
import {
  ARR,
  ATOM_EXT,
  B,
  BIN,
  BINARY_EXT,
  FLT,
  I,
  INTEGER_EXT,
  LIST_EXT,
  MAP_EXT,
  NEW_FLOAT_EXT,
  NIL_EXT,
  NIL_RECORD,
  NL,
  OBJ,
  SMALL_ATOM_UTF8_EXT,
  SMALL_BIG_EXT,
  SMALL_INTEGER_EXT,
  SMALL_TUPLE_EXT,
  STR,
} from './tags.ts';

// A Value begins with {Variant, Contents}: SMALL_TUPLE_EXT, 2, then the atom's tag and the length of its name.
const UTF8_NAME = (SMALL_TUPLE_EXT << 24) | (2 << 16) | (SMALL_ATOM_UTF8_EXT << 8);
const LATIN1_NAME = (SMALL_TUPLE_EXT << 24) | (2 << 16) | (ATOM_EXT << 8);

const TRUE = 0x74_72_75_65;
const FALS = 0x66_61_6c_73;

/**
 * A Value in Thrift never takes more than 12/7 of the bytes of its term: `{i, 0}` grows from 7 to 12, an empty arr from 8
 * to 9, all others shrink. OVERRUN_BYTES is for the last Value: only after it is written is its end compared with `end`.
 */
const MAX_GROWTH = 12 / 7;
const OVERRUN_BYTES = 16;
/** So many bytes from the start of a Value may be read before they are known to exist. */
const LOOKAHEAD_BYTES = 32;
/** Magnitudes of so many bytes fit 64 bits with any sign. */
const MAX_BIG_BYTES = 7;
/** Up to here a loop is faster than a call into the runtime's memcpy (measured on Bun). */
const SHORT_COPY_BYTES = 24;

// Open containers. One set serves all passes: a pass is synchronous.
/** Values still to come: an entry of an obj is two */
const left = new Int32Array(MAX_FAST_PATH_DEPTH);
/** obj: length of `keys` when it began. arr: -1 */
const firstKey = new Int32Array(MAX_FAST_PATH_DEPTH);
/** Keys of the open objs, as `findMapKeyFault` reads them */
const keys: number[] = [];

/** View of `viewed`, the bytes of the last call: all payloads of a chunk share one */
let view: DataView = new DataView(new ArrayBuffer(0));
let viewed: Buffer | undefined;

/**
 * Appends the Thrift encoding of the Value whose term begins `bytes[start..end)`. Returns false, with `out` unchanged, when
 * the decoder must convert it.
 *
 * It is one long function because calls are what it saves: state in local variables, and one branch a variant.
 */
export function tryFastPath(bytes: Buffer, start: number, end: number, out: ByteWriter): boolean {
  out.reserve(Math.ceil((end - start) * MAX_GROWTH) + OVERRUN_BYTES);
  if (bytes !== viewed) {
    view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    viewed = bytes;
  }
  const from = view;
  const to = out.data;
  const lastStart = bytes.length - LOOKAHEAD_BYTES;
  let at = start;
  let next = out.length;
  let depth = 0;
  keys.length = 0;
  for (;;) {
    if (at > lastStart) return false;
    // In an obj an even number of Values left means a key.
    const isKey = depth > 0 && firstKey[depth - 1]! >= 0 && (left[depth - 1]! & 1) === 0;
    const valueAt = next;

    // Four bytes at a time: head, then length and name. Bytes after a short name are shifted out.
    const head = from.getInt32(at);
    at += 3;
    if ((head & ~0xff) === LATIN1_NAME && (head & 0xff) === 0) at++;
    else if ((head & ~0xff) !== UTF8_NAME) return false;
    const name = from.getInt32(at);
    const nameBytes = name >>> 24;
    if (nameBytes < 1 || nameBytes > 3) return false;
    const variant = name >>> ((3 - nameBytes) * 8);
    at += 1 + nameBytes;

    if (variant === STR || variant === BIN) {
      if (from.getUint8(at) !== BINARY_EXT) return false;
      const length = from.getInt32(at + 1);
      at += 5;
      if (length < 0 || length > end - at) return false;
      to.setInt32(next, (variant === STR ? VALUE_STR : VALUE_BIN) << 8);
      to.setInt32(next + 3, length);
      next += 7;
      if (length <= SHORT_COPY_BYTES) for (let i = 0; i < length; i++) out.bytes[next + i] = bytes[at + i]!;
      else bytes.copy(out.bytes, next, at, at + length);
      at += length;
      next += length;
      to.setUint8(next++, FIELD_STOP);
    } else if (variant === I) {
      const tag = from.getUint8(at);
      let high = 0;
      let low = 0;
      if (tag === SMALL_INTEGER_EXT) {
        low = from.getUint8(at + 1);
        at += 2;
      } else if (tag === INTEGER_EXT) {
        low = from.getInt32(at + 1);
        high = low >> 31;
        at += 5;
      } else if (tag === SMALL_BIG_EXT) {
        const length = from.getUint8(at + 1);
        const sign = from.getUint8(at + 2);
        if (length > MAX_BIG_BYTES || sign > 1) return false;
        at += 3;
        for (let i = 0; i < length; i++) {
          const byte = from.getUint8(at + i);
          if (i < 4) low |= byte << (i * 8);
          else high |= byte << ((i - 4) * 8);
        }
        if (sign === 1) {
          low = -low | 0;
          high = low === 0 ? -high | 0 : ~high;
        }
        at += length;
      } else {
        return false;
      }
      to.setInt32(next, VALUE_I << 8);
      to.setInt32(next + 3, high);
      to.setInt32(next + 7, low);
      to.setUint8(next + 11, FIELD_STOP);
      next += 12;
    } else if (isKey) {
      // Equal terms of these variants may differ in their bytes.
      return false;
    } else if (variant === OBJ || variant === ARR) {
      if (depth === MAX_FAST_PATH_DEPTH) return false;
      const tag = from.getUint8(at);
      let count = 0;
      if (tag === (variant === OBJ ? MAP_EXT : LIST_EXT)) {
        count = from.getInt32(at + 1);
        at += 5;
        // Every Value has at least a byte.
        if (count < 0 || count > end - at) return false;
      } else if (variant === OBJ || tag !== NIL_EXT) {
        return false;
      }
      if (variant === OBJ) {
        to.setInt32(next, (VALUE_OBJ << 8) | (VALUE_OBJ_TYPES >> 8));
        to.setUint8(next + 4, VALUE_OBJ_TYPES & 0xff);
        to.setInt32(next + 5, count);
        next += 9;
        firstKey[depth] = keys.length;
        count *= 2;
      } else {
        to.setInt32(next, (VALUE_ARR << 8) | VALUE_ARR_TYPE);
        to.setInt32(next + 4, count);
        next += 8;
        firstKey[depth] = -1;
      }
      // One more, because the end of the loop subtracts one. NIL_EXT, an empty list, is its own tail: it is read where the arr ends.
      left[depth++] = count + 1;
    } else if (variant === B) {
      const tag = from.getUint8(at);
      at += tag === SMALL_ATOM_UTF8_EXT ? 2 : 3;
      if (tag !== SMALL_ATOM_UTF8_EXT && (tag !== ATOM_EXT || from.getUint8(at - 2) !== 0)) return false;
      const length = from.getUint8(at - 1);
      const isTrue = length === 4 && from.getInt32(at) === TRUE;
      if (!isTrue && !(length === 5 && from.getInt32(at) === FALS && from.getUint8(at + 4) === 0x65)) return false;
      at += length;
      to.setInt32(next, (VALUE_B << 8) | (isTrue ? 1 : 0));
      to.setUint8(next + 4, FIELD_STOP);
      next += 5;
    } else if (variant === FLT) {
      // All bits of the exponent set: infinity or NaN.
      if (from.getUint8(at) !== NEW_FLOAT_EXT || (from.getInt32(at + 1) & 0x7ff0_0000) === 0x7ff0_0000) return false;
      to.setInt32(next, VALUE_FLT << 8);
      to.setInt32(next + 3, from.getInt32(at + 1));
      to.setInt32(next + 7, from.getInt32(at + 5));
      to.setUint8(next + 11, FIELD_STOP);
      at += 9;
      next += 12;
    } else if (variant === NL) {
      at = nilEnd(bytes, at);
      if (at < 0) return false;
      to.setInt32(next, VALUE_NL << 8);
      to.setUint8(next + 4, FIELD_STOP);
      next += 5;
    } else {
      return false;
    }

    // The Value reached beyond the payload, into bytes that are not its own.
    if (at > end) return false;
    if (isKey) keys.push(valueAt, next, 0);
    while (depth > 0 && --left[depth - 1]! === 0) {
      depth--;
      const fromKey = firstKey[depth]!;
      if (fromKey < 0) {
        if (at >= end || bytes[at++] !== NIL_EXT) return false;
      } else {
        if (findMapKeyFault(out.bytes, keys, fromKey) !== undefined) return false;
        keys.length = fromKey;
      }
      to.setUint8(next++, FIELD_STOP);
    }
    if (depth === 0) {
      out.length = next;
      return true;
    }
  }
}

/** End of the `{mg_msgpack_Nil}` at `at`; -1 when it is not there in one of the two usual forms. */
function nilEnd(bytes: Buffer, at: number): number {
  if (bytes[at] !== SMALL_TUPLE_EXT || bytes[at + 1] !== 1) return -1;
  const isLatin1 = bytes[at + 2] === ATOM_EXT && bytes[at + 3] === 0;
  if (!isLatin1 && bytes[at + 2] !== SMALL_ATOM_UTF8_EXT) return -1;
  const nameAt = at + (isLatin1 ? 5 : 4);
  if (bytes[nameAt - 1] !== NIL_RECORD.length) return -1;
  for (let i = 0; i < NIL_RECORD.length; i++) if (bytes[nameAt + i] !== NIL_RECORD[i]) return -1;
  return nameAt + NIL_RECORD.length;
}
