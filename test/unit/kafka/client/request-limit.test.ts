import { describe, expect, test } from 'bun:test';
import {
  createRequestLimit,
  forgetRefusedRequests,
  learnRequestLimit,
  maySizeBeRefused,
  noteTakenRequest,
  recordRequestBytes,
  sharedRequestBytes,
} from '../../../../src/kafka/client/request-limit.ts';

/** Learns from a connection that was closed on a request of this size, by a broker that takes so much; records the proofs. */
async function learn(
  limit: ReturnType<typeof createRequestLimit>,
  refusedBytes: number,
  takenBytes: number | undefined,
) {
  const proofs: number[] = [];
  const isLearned = await learnRequestLimit(limit, refusedBytes, async (bytes) => {
    proofs.push(bytes);
    return takenBytes === undefined ? undefined : bytes <= takenBytes;
  });
  return { isLearned, proofs };
}

describe('the limit of requests', () => {
  test('is the setting, until a broker is known to take less', async () => {
    const limit = createRequestLimit(1_000_000);
    expect([sharedRequestBytes(limit), recordRequestBytes(limit)]).toEqual([1_000_000, 1_000_000]);
    expect(await learn(limit, 800_000, 300_000)).toEqual({ isLearned: true, proofs: [800_000, 400_000, 200_000] });
    expect([sharedRequestBytes(limit), recordRequestBytes(limit)]).toEqual([200_000, 799_999]);
  });

  test('is learned more exactly from every record that is refused', async () => {
    const limit = createRequestLimit(1_000_000);
    await learn(limit, 800_000, 300_000);
    noteTakenRequest(limit, 250_000);
    await learn(limit, 350_000, 300_000);
    expect([sharedRequestBytes(limit), recordRequestBytes(limit)]).toEqual([175_000, 349_999]);
  });

  test.each<[string, number, number | undefined]>([
    ['the broker takes the size', 800_000, 900_000],
    ['it cannot be found out', 800_000, undefined],
    ['the broker closes on every size', 800_000, 0],
  ])('is left as it was when %s', async (_, refusedBytes, takenBytes) => {
    const limit = createRequestLimit(1_000_000);
    expect((await learn(limit, refusedBytes, takenBytes)).isLearned).toBe(false);
    expect(limit).toEqual(createRequestLimit(1_000_000));
  });

  test('is in question only for requests that are larger than any that was answered', () => {
    const limit = createRequestLimit(1_000_000);
    noteTakenRequest(limit, 5_000);
    noteTakenRequest(limit, 4_000);
    expect([100, 5_000, 5_001].map((bytes) => maySizeBeRefused(limit, bytes))).toEqual([false, false, true]);
  });

  test('is tried again when what was refused is forgotten', async () => {
    const limit = createRequestLimit(1_000_000);
    await learn(limit, 800_000, 300_000);
    forgetRefusedRequests(limit);
    expect([sharedRequestBytes(limit), recordRequestBytes(limit)]).toEqual([1_000_000, 1_000_000]);
  });
});
