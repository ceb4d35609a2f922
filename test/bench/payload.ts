/** Event payloads of an exact size. */
import { encodePayload, int, str, type Value } from '../support/etf.ts';

/** How many different payloads a backlog cycles through. */
export const PAYLOAD_VARIANT_COUNT = 16;

/** ETF payloads, each of exactly `bytes` bytes: what a small event of progressor looks like, filled up by a text. */
export function payloadsOf(bytes: number): Buffer[] {
  return Array.from({ length: PAYLOAD_VARIANT_COUNT }, (_, variant) => {
    const bare = encodePayload(event(variant, 0)).length;
    if (bare > bytes) throw new Error(`Cannot make a payload of ${bytes} bytes: the smallest has ${bare}`);
    return encodePayload(event(variant, bytes - bare));
  });
}

function event(variant: number, fillerBytes: number): Value {
  const change: Value = {
    obj: [
      [str('type'), str('status_changed')],
      [str('amount'), int(1_000_000 + variant)],
      [str('currency'), str('RUB')],
      [str('final'), { b: variant % 2 === 0 }],
      [str('filler'), str('x'.repeat(fillerBytes))],
    ],
  };
  return { arr: [int(variant), change] };
}
