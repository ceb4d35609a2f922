/**
 * The quick way of `value.ts` for payloads as progressor writes them: one loop over plain arrays, no object, no call but
 * the copy of long texts. An event of 270 bytes takes 0.4 us so and 1.3 us the careful way (`make bench-stages`).
 *
 * It knows the usual forms only and judges nothing: at whatever is unusual, damaged or not, it gives up, and the careful
 * way begins anew, which knows every form and every fault. So there is one place that says what is right.
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

const NEW_FLOAT_EXT = 70; // 'F'
const SMALL_INTEGER_EXT = 97; // 'a'
const INTEGER_EXT = 98; // 'b'
const ATOM_EXT = 100; // 'd', up to OTP 25
const SMALL_TUPLE_EXT = 104; // 'h'
const NIL_EXT = 106; // 'j'
const LIST_EXT = 108; // 'l'
const BINARY_EXT = 109; // 'm'
const SMALL_BIG_EXT = 110; // 'n'
const MAP_EXT = 116; // 't'
const SMALL_ATOM_UTF8_EXT = 119; // 'w', from OTP 26 on

// A value begins with {Variant, Contents}: SMALL_TUPLE_EXT, 2, then the atom's tag and the length of its name.
const UTF8_NAME = (SMALL_TUPLE_EXT << 24) | (2 << 16) | (SMALL_ATOM_UTF8_EXT << 8);
const LATIN1_NAME = (SMALL_TUPLE_EXT << 24) | (2 << 16) | (ATOM_EXT << 8);

// Names of variants as numbers, their length first.
const STR = 0x03_73_74_72;
const BIN = 0x03_62_69_6e;
const OBJ = 0x03_6f_62_6a;
const ARR = 0x03_61_72_72;
const FLT = 0x03_66_6c_74;
const NL = 0x02_6e_6c;
const I = 0x01_69;
const B = 0x01_62;

const TRUE = 0x74_72_75_65;
const FALS = 0x66_61_6c_73;
const NIL_RECORD = Buffer.from('mg_msgpack_Nil', 'latin1');

/**
 * A Value in Thrift never takes more than 12/7 of its bytes as a term: `{i, 0}` has 7 and becomes 12, an empty arr has 8
 * and becomes 9, all others shrink. The rest is for the one value that is found to lie behind the end when it is written.
 */
const MAX_GROWTH = 12 / 7;
const OVERRUN_BYTES = 16;
/** Behind the beginning of a value so much may be read before it is known to be there. */
const LOOKAHEAD_BYTES = 32;
/** Magnitudes of so many bytes fit 64 bits with their sign. */
const MAX_BIG_BYTES = 7;
/** Up to here a loop is faster than a call into the runtime's memcpy (measured on Bun). */
const SHORT_COPY_BYTES = 24;
const MAX_USUAL_DEPTH = 64;

// Open containers: one pass at a time, and none waits for anything.
/** Values that are still to come: a map entry is two */
const left = new Int32Array(MAX_USUAL_DEPTH);
/** For an obj the number of entries in `keys` when it began, for an arr -1 */
const firstKey = new Int32Array(MAX_USUAL_DEPTH);
/** Keys of the open objs, as `findMapKeyFault` wants them */
const keys: number[] = [];

/** Of the bytes that were read last: one for all payloads of a chunk */
let view: DataView = new DataView(new ArrayBuffer(0));
let viewed: Buffer | undefined;

/**
 * Appends the Thrift encoding of the Value that is the term at the beginning of `bytes[start..end)`. False, with `out` as
 * it was, when there is anything in it that is left to the careful way.
 */
export function writeUsualValue(bytes: Buffer, start: number, end: number, out: ByteWriter): boolean {
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
    // In an obj an even number of values left means a key.
    const isKey = depth > 0 && firstKey[depth - 1]! >= 0 && (left[depth - 1]! & 1) === 0;
    const valueAt = next;

    // Four bytes at a time: head, and length with name. What a name does not fill is shifted out.
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
      // Of these, equal terms may differ in their bytes.
      return false;
    } else if (variant === OBJ || variant === ARR) {
      if (depth === MAX_USUAL_DEPTH) return false;
      const tag = from.getUint8(at);
      let count = 0;
      if (tag === (variant === OBJ ? MAP_EXT : LIST_EXT)) {
        count = from.getInt32(at + 1);
        at += 5;
        // No value has less than a byte: what is counted must be there.
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
      // One more, because the loop's end takes one off. An empty list is its own tail, which is read where the arr ends.
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
      // All bits of the exponent set: infinite or not a number.
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

    // The bytes behind the payload belong to somebody else, whatever was read there.
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

/** Where `{mg_msgpack_Nil}` ends that stands at `at`; -1 when it does not stand there in one of the two usual forms. */
function nilEnd(bytes: Buffer, at: number): number {
  if (bytes[at] !== SMALL_TUPLE_EXT || bytes[at + 1] !== 1) return -1;
  const isLatin1 = bytes[at + 2] === ATOM_EXT && bytes[at + 3] === 0;
  if (!isLatin1 && bytes[at + 2] !== SMALL_ATOM_UTF8_EXT) return -1;
  const nameAt = at + (isLatin1 ? 5 : 4);
  if (bytes[nameAt - 1] !== NIL_RECORD.length) return -1;
  for (let i = 0; i < NIL_RECORD.length; i++) if (bytes[nameAt + i] !== NIL_RECORD[i]) return -1;
  return nameAt + NIL_RECORD.length;
}
