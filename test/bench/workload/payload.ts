/** Event payloads: of an exact size, or a deep structure. */
import { encodePayload, int, seededRandom, str, type Value } from '../../support/codecs/etf.ts';

/** Different payloads of a backlog. */
export const PAYLOAD_VARIANT_COUNT = 16;

const DEEP_LEVEL_COUNT = 3;
const KEYS_PER_LEVEL = 40;

/** Filling and number of payloads, where they differ from those of backlogs. */
export interface PayloadOptions {
  readonly filler?: (length: number, seed: number) => string;
  readonly variantCount?: number;
}

/**
 * ETF payloads of exactly `bytes` bytes: a small event of progressor, filled up with a text. The text is random, so that
 * PostgreSQL cannot compress it: values over 2 KB are stored out of line (TOAST) uncompressed.
 */
export function payloadsOf(
  bytes: number,
  { filler = randomText, variantCount = PAYLOAD_VARIANT_COUNT }: PayloadOptions = {},
): Buffer[] {
  return variants(variantCount, (variant) => {
    const event = [statusChange, textAlone].find((shape) => encodePayload(shape(variant, '')).length <= bytes);
    if (event === undefined) throw new Error(`Cannot make a payload of ${bytes} bytes: that is too small`);
    const bare = encodePayload(event(variant, '')).length;
    return encodePayload(event(variant, filler(bytes - bare, variant)));
  });
}

/** ETF payloads of an obj with 40 keys, one of which contains the next of three levels: about 5 KB. */
export function deepPayloads(): Buffer[] {
  return variants(PAYLOAD_VARIANT_COUNT, (variant) => encodePayload({ arr: [int(variant), deepObject(variant, 1)] }));
}

/** A typical size of payloads. */
export function meanBytes(payloads: readonly Buffer[]): number {
  return Math.round(payloads.reduce((sum, { length }) => sum + length, 0) / payloads.length);
}

function variants(count: number, payload: (variant: number) => Buffer): Buffer[] {
  return Array.from({ length: count }, (_, variant) => payload(variant));
}

function statusChange(variant: number, filler: string): Value {
  const change: Value = {
    obj: [
      [str('type'), str('status_changed')],
      [str('amount'), int(1_000_000 + variant)],
      [str('currency'), str('RUB')],
      [str('final'), { b: variant % 2 === 0 }],
      [str('filler'), str(filler)],
    ],
  };
  return { arr: [int(variant), change] };
}

function textAlone(variant: number, filler: string): Value {
  return { arr: [int(variant), str(filler)] };
}

function deepObject(variant: number, level: number): Value {
  const entry = (index: number): readonly [Value, Value] => {
    const key = str(`key_${level}_${String(index).padStart(2, '0')}`);
    if (index === KEYS_PER_LEVEL - 1 && level < DEEP_LEVEL_COUNT) return [key, deepObject(variant, level + 1)];
    return [key, leaf(variant, level * KEYS_PER_LEVEL + index)];
  };
  return { obj: Array.from({ length: KEYS_PER_LEVEL }, (_, index) => entry(index)) };
}

function leaf(variant: number, number: number): Value {
  switch (number % 4) {
    case 0:
      return int(number * 1_000_003 + variant);
    case 1:
      return { b: variant % 2 === 0 };
    case 2:
      return { bin: Buffer.from(randomText(24, variant * 1_000 + number)) };
    default:
      return str(randomText(24, variant * 1_000 + number));
  }
}

function randomText(length: number, seed: number): string {
  const random = seededRandom(seed);
  return Array.from({ length }, () => Math.floor(random() * 36).toString(36)).join('');
}
