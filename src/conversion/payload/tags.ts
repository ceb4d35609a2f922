/**
 * Tags of Erlang's External Term Format, and the names in the terms of msgpack.Value.
 * https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
 */

/** First byte of every payload: version of the format. */
export const VERSION = 131;

/** Second byte of a compressed payload, 'P'. */
export const COMPRESSED = 80;

/** 'F': 8 bytes, IEEE 754. */
export const NEW_FLOAT_EXT = 70;
/** 'a': u8. */
export const SMALL_INTEGER_EXT = 97;
/** 'b': i32. */
export const INTEGER_EXT = 98;
/** 'c': 31 bytes of text. */
export const FLOAT_EXT = 99;
/** 'd': u16 length, Latin-1; what OTP writes up to release 25. */
export const ATOM_EXT = 100;
/** 'h': u8 arity. */
export const SMALL_TUPLE_EXT = 104;
/** 'i': u32 arity. */
export const LARGE_TUPLE_EXT = 105;
/** 'j': the empty list, and the tail of a proper one. */
export const NIL_EXT = 106;
/** 'l': u32 count, elements, tail. */
export const LIST_EXT = 108;
/** 'm': u32 length, bytes. */
export const BINARY_EXT = 109;
/** 'n': u8 length, sign byte, magnitude with its least byte first. */
export const SMALL_BIG_EXT = 110;
/** 'o': the same with a u32 length. */
export const LARGE_BIG_EXT = 111;
/** 's': u8 length, Latin-1. */
export const SMALL_ATOM_EXT = 115;
/** 't': u32 arity, then key and value in turn. */
export const MAP_EXT = 116;
/** 'v': u16 length, UTF-8. */
export const ATOM_UTF8_EXT = 118;
/** 'w': u8 length, UTF-8; what OTP writes from release 26 on. */
export const SMALL_ATOM_UTF8_EXT = 119;

// Names of the variants as one number each: length, then letters.
export const STR = 0x03_73_74_72;
export const BIN = 0x03_62_69_6e;
export const OBJ = 0x03_6f_62_6a;
export const ARR = 0x03_61_72_72;
export const FLT = 0x03_66_6c_74;
export const NL = 0x02_6e_6c;
export const I = 0x01_69;
export const B = 0x01_62;

/** The record that `nl` holds: `{mg_msgpack_Nil}`. */
export const NIL_RECORD = Buffer.from('mg_msgpack_Nil', 'latin1');
