/** Servers that the tests of a file, or of a `describe`, share: started before the first of them, stopped after the last. */
import { afterAll, beforeAll } from 'bun:test';
import { type KafkaServer, startKafka } from '../kafka/server.ts';
import { type PostgresMajor, type PostgresServer, startPostgres } from '../postgres/server.ts';

const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 30_000;

/** A PostgreSQL of this version that keeps commit times, as records need them; the returned function gives it to a test. */
export function usePostgres(major: PostgresMajor): () => PostgresServer {
  return useServer(() => startPostgres({ major, settings: { track_commit_timestamp: 'on' } }));
}

/** A Kafka broker; the returned function gives it to a test. */
export function useKafka(): () => KafkaServer {
  return useServer(() => startKafka());
}

function useServer<Server extends AsyncDisposable>(start: () => Promise<Server>): () => Server {
  let server: Server | undefined;
  beforeAll(async () => {
    server = await start();
  }, START_TIMEOUT_MS);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  }, STOP_TIMEOUT_MS);
  return () => {
    if (server === undefined) throw new Error('The server is not running yet');
    return server;
  };
}
