import { describe, expect, test } from 'bun:test';
import { ByteWriter } from '../../../../src/bytes/writer.ts';
import { EventPayload } from '../../../../src/conversion/payload/payload.ts';
import { writeSinkEvent } from '../../../../src/conversion/thrift/mg-proto.ts';
import { formatTimestamp } from '../../../../src/conversion/timestamp.ts';
import { MalformedError } from '../../../../src/errors.ts';
import { seededRandom } from '../../../support/codecs/etf.ts';
import { decodeSinkEvent, decodeValue } from '../../../support/codecs/thrift-reader.ts';
import {
  type EventVector,
  hasHashOrder,
  readEventVectors,
  readInvalidVectors,
  timestampMicros,
  withoutHashOrder,
} from '../../../support/codecs/vectors.ts';

const vectors = readEventVectors();
const payloads = vectors.map(({ payload_hex }) => Buffer.from(payload_hex, 'hex'));
const invalid = readInvalidVectors();

function writeRecord(vector: EventVector, payload: Buffer): Buffer {
  const out = new ByteWriter();
  const event = {
    source_ns: Buffer.from(vector.ns),
    source_id: Buffer.from(vector.process_id),
    event_id: BigInt(vector.event_id),
    created_at: formatTimestamp(timestampMicros(vector.timestamp)),
    format_version: vector.format_version ?? undefined,
    data: new EventPayload(payload, 0, payload.length),
  };
  writeSinkEvent(out, { event });
  return out.toBuffer();
}

/** The Thrift encoding; undefined when the payload is refused with a MalformedError of ETF. Every other error is thrown. */
function convert(payload: Buffer): Buffer | undefined {
  const out = new ByteWriter();
  try {
    new EventPayload(payload, 0, payload.length).writeTo(out);
  } catch (error) {
    if (error instanceof MalformedError && error.format === 'ETF') return undefined;
    throw error;
  }
  return out.toBuffer();
}

describe('EventPayload on the golden vectors', () => {
  test('gives every record byte for byte, except for the order of maps that Erlang hashes', () => {
    let compared = 0;
    vectors.forEach((vector, index) => {
      const written = writeRecord(vector, payloads[index]!);
      const expected = Buffer.from(vector.value_hex, 'hex');
      const decoded = decodeSinkEvent(expected);
      if (hasHashOrder(decoded.event.data)) {
        const mine = decodeSinkEvent(written);
        expect(written.length).toBe(expected.length);
        expect({ ...mine.event, data: withoutHashOrder(mine.event.data) }).toEqual({
          ...decoded.event,
          data: withoutHashOrder(decoded.event.data),
        });
      } else {
        expect(written).toEqual(expected);
        compared++;
      }
    });
    expect(vectors.length).toBe(150);
    expect(compared).toBeGreaterThanOrEqual(140);
  });

  test.each(invalid.map(({ why, payload_hex }) => [why, payload_hex]))('refuses %s', (_, payloadHex) => {
    expect(convert(Buffer.from(payloadHex, 'hex'))).toBeUndefined();
  });

  test('refuses every truncation of every payload', () => {
    expect(invalid.length).toBe(20);
    for (const payload of payloads) {
      // Every length of a small payload; both ends and a sample of the rest of a large one.
      const step = payload.length <= 2_000 ? 1 : Math.ceil(payload.length / 150);
      for (let length = 0; length < payload.length; length += length < 300 ? 1 : step) {
        if (convert(payload.subarray(0, length)) !== undefined) expect.unreachable(`accepted ${length} bytes`);
      }
      for (let cut = 1; cut <= Math.min(payload.length, 40); cut++) {
        if (convert(payload.subarray(0, -cut)) !== undefined) expect.unreachable(`accepted all but ${cut} bytes`);
      }
    }
  });

  test('answers random damage with a typed error, or with bytes that an independent reader understands', () => {
    const random = seededRandom(42);
    const below = (limit: number) => Math.floor(random() * limit);
    const small = payloads.filter(({ length }) => length < 4_000);
    const interesting = [
      0, 1, 2, 70, 80, 97, 98, 99, 104, 105, 106, 107, 108, 109, 110, 111, 116, 119, 127, 128, 131, 255,
    ];
    let accepted = 0;
    for (let run = 0; run < 20_000; run++) {
      const payload = Buffer.from(small[below(small.length)]!);
      for (let edits = 1 + below(4); edits > 0; edits--) {
        const at = below(payload.length);
        const kind = below(4);
        if (kind < 2) payload[at] = interesting[below(interesting.length)]!;
        else if (kind === 2) payload[at]! ^= 1 << below(8);
        else payload.copyWithin(at, below(payload.length), payload.length);
      }
      const written = convert(payload);
      if (written === undefined) continue;
      accepted++;
      decodeValue(written);
      // An integer of 7 bytes grows to 12; inflated data are bounded by the declared size.
      const size = payload[1] === 80 ? payload.readUInt32BE(2) : payload.length;
      expect(written.length).toBeLessThanOrEqual(size * 2);
    }
    expect(accepted).toBeGreaterThan(500);
  });

  test('answers random bytes with a typed error', () => {
    const random = seededRandom(43);
    for (let run = 0; run < 20_000; run++) {
      const payload = Buffer.from(
        Array.from({ length: 1 + Math.floor(random() * 60) }, () => Math.floor(random() * 256)),
      );
      payload[0] = 131;
      convert(payload);
    }
  });
});
