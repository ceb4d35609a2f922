/**
 * The library (@platformatic/kafka 2.12.1) reads a length from 2^31 on as a negative one: its reader then steps back, and
 * reads the same bytes as often as some count before them says, for minutes in which nothing else runs.
 */
import { Reader } from '@platformatic/kafka';

const readUnsignedVarInt = Reader.prototype.readUnsignedVarInt;

Reader.prototype.readUnsignedVarInt = function (this: Reader): number {
  const value = readUnsignedVarInt.call(this);
  // The code is that of the library's own errors of this kind.
  if (value < 0) throw Object.assign(new RangeError('A length is larger than any answer'), { code: 'OUT_OF_BOUNDS' });
  return value;
};
