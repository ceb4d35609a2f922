/** The quick suite of one pair of versions, for `make test`: each fault once, at a moment chosen by the seed. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { seededRandom } from '../support/codecs/etf.ts';
import { type FaultServers, startFaultServers, type VersionPair } from './fixture/servers.ts';
import { FAULTS } from './injection/all-faults.ts';
import type { Moment } from './injection/fault.ts';
import { runFault } from './run-fault.ts';

const TIMEOUT_MS = 240_000;

/** Declares the tests of a pair; `FAULTS_SEED` (default 1) chooses moments and workload. */
export function describeFaults(pair: VersionPair): void {
  const seed = Number(process.env.FAULTS_SEED ?? '1') * 1000 + pair.postgres;
  const random = seededRandom(seed);
  let servers: FaultServers;

  beforeAll(async () => {
    servers = await startFaultServers(pair);
  }, 120_000);

  afterAll(async () => {
    await servers?.[Symbol.asyncDispose]();
    // Five servers with their data: a busy machine took longer than a minute.
  }, 300_000);

  describe(`on PostgreSQL ${pair.postgres} and Kafka ${pair.kafka}, nothing is lost when`, () => {
    for (const [index, fault] of FAULTS.entries()) {
      const moment = fault.moments[Math.floor(random() * fault.moments.length)] as Moment;
      const own = { moment, seed: seed + index };
      test(
        fault.name,
        async () => {
          const { ok, findings } = await runFault(servers, fault, own);
          expect({ ...own, ok, findings }).toEqual({ ...own, ok: true, findings: [] });
        },
        TIMEOUT_MS,
      );
    }
  });
}
