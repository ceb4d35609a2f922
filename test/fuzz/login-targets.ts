/**
 * Logins to servers that damage their messages, over real sockets: PostgreSQL with every authentication that it may ask for,
 * and Kafka with every SASL mechanism. Challenges are made from the client's own nonce, so that a login gets to its end.
 */
import { createServer, type Server, type Socket } from 'node:net';
import pino from 'pino';
import type { DatabaseEndpoint, KafkaSaslConfig } from '../../src/config/config.ts';
import { textSecret } from '../../src/config/secret.ts';
import { within } from '../../src/deadline.ts';
import { NotifierError } from '../../src/errors.ts';
import { explainFailure } from '../../src/failure-policy.ts';
import { Cluster } from '../../src/kafka/client/cluster.ts';
import { connectControl, connectReplication } from '../../src/postgres/client/connect.ts';
import { clientConfig } from '../support/kafka/open-producer.ts';
import { answerFrame, RECORDED_TOPICS, readKafkaAnswers } from '../support/kafka/recorded-answers.ts';
import type { FuzzTarget } from './campaign.ts';
import { mutateBytes, pick, type Random } from './mutate.ts';

const HOST = '127.0.0.1';
const LANES = 8;
/** Longest wait of the client; a server that is silent costs as much */
const CLIENT_TIMEOUT_MS = 300;
/** Several times the sum of all waits */
const LOGIN_LIMIT_MS = 10_000;
const DAMAGED_SHARE = 0.5;
/** What a server may ask to compute, and what would freeze a client that believes it */
const ITERATIONS = ['1', '4096', '0', '-1', '1e9', '999999999999', '2147483647', '', 'x'];

/** Serves one login at a time; `random` is that of the running mutation. */
class LoginServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  random: Random = () => 0;

  private constructor(serve: (socket: Socket, random: () => Random) => void) {
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
      serve(socket, () => this.random);
    });
  }

  static async start(serve: (socket: Socket, random: () => Random) => void): Promise<LoginServer> {
    const server = new LoginServer(serve);
    await new Promise<void>((resolve) => server.#server.listen(0, HOST, resolve));
    return server;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** Ends all connections with RST: thousands of logins would otherwise leave their ports in TIME_WAIT. */
  reset(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.reset();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** A target whose mutations log in to a server of their own, several at once. */
async function loginTarget(
  name: string,
  serve: (socket: Socket, random: () => Random) => void,
  logIn: (port: number, random: Random) => Promise<string>,
): Promise<FuzzTarget> {
  const servers = await Promise.all(Array.from({ length: LANES }, () => LoginServer.start(serve)));
  const idle = [...servers];
  return {
    name,
    lanes: LANES,
    slowestMs: LOGIN_LIMIT_MS,
    async run(random) {
      const server = idle.pop()!;
      server.random = random;
      try {
        return await logIn(server.port, random);
      } finally {
        server.reset();
        idle.push(server);
      }
    },
    async close() {
      await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    },
  };
}

/** Sends a message whole, damaged, or not at all. */
function send(socket: Socket, message: Buffer, random: Random): void {
  const choice = random();
  if (choice < DAMAGED_SHARE) socket.write(mutateBytes(message, random));
  else if (choice < DAMAGED_SHARE + 0.02) socket.end();
  else socket.write(message);
}

/** The server's first message of SCRAM (RFC 5802), from the client's nonce. */
function scramChallenge(clientFirst: string, random: Random): string {
  const nonce = /r=([^,]*)/.exec(clientFirst)?.[1] ?? '';
  const iterations = random() < 0.3 ? pick(random, ITERATIONS) : '4096';
  return random() < 0.1
    ? pick(random, [`r=${nonce}`, 's=,i=', 'e=other-error', ''])
    : `r=${nonce}abc,s=c2FsdA==,i=${iterations}`;
}

/** Messages of PostgreSQL: type, length, body. */
function message(type: string, ...parts: (Buffer | string | number)[]): Buffer {
  const body = Buffer.concat(
    parts.map((part) => {
      if (typeof part !== 'number') return Buffer.from(part);
      const bytes = Buffer.alloc(4);
      bytes.writeInt32BE(part);
      return bytes;
    }),
  );
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeInt32BE(4 + body.length, 1);
  return Buffer.concat([head, body]);
}

const AUTHENTICATIONS = {
  ok: message('R', 0),
  cleartext: message('R', 3),
  md5: message('R', 5, 'salt'),
  gss: message('R', 7),
  scram: message('R', 10, 'SCRAM-SHA-256\0\0'),
} as const;
const LOGGED_IN = Buffer.concat([
  AUTHENTICATIONS.ok,
  message('S', 'server_version\0', '18.4\0'),
  message('S', 'client_encoding\0', 'UTF8\0'),
  message('K', 1, 2),
  message('Z', 'I'),
]);
const REFUSAL = message('E', 'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed\0\0');

/** Answers the startup packet, then each message of the login. */
function servePostgres(socket: Socket, random: () => Random): void {
  let step = 0;
  socket.on('data', (chunk: Buffer) => {
    step += 1;
    const now = random();
    if (step === 1) {
      const kind = pick(now, ['scram', 'scram', 'scram', 'md5', 'cleartext', 'gss', 'ok'] as const);
      send(socket, kind === 'ok' ? LOGGED_IN : AUTHENTICATIONS[kind], now);
    } else if (step === 2 && chunk[0] === 'p'.charCodeAt(0) && chunk.includes('r=')) {
      send(socket, message('R', 11, scramChallenge(chunk.toString('latin1'), now)), now);
    } else if (step === 3 && random()() < 0.5) {
      send(socket, message('R', 12, 'v=c2lnbmF0dXJl'), now);
    } else {
      send(socket, pick(now, [LOGGED_IN, REFUSAL]), now);
    }
  });
}

/** Logins to PostgreSQL: with a password, for queries and for replication. */
export function postgresLogins(): Promise<FuzzTarget> {
  return loginTarget('postgres-logins', servePostgres, async (port, random) => {
    const endpoint = {
      ref: 'db',
      host: HOST,
      port,
      database: 'db',
      username: 'user',
      password: textSecret('password'),
      tls: undefined,
    } as DatabaseEndpoint;
    const connect = random() < 0.5 ? connectControl : connectReplication;
    const sql = connect(endpoint, { applicationName: 'fuzz', connectTimeoutMs: CLIENT_TIMEOUT_MS });
    try {
      await within(2 * CLIENT_TIMEOUT_MS, 'ask the server', sql.unsafe('SELECT 1'));
      return 'answer';
    } catch (error) {
      return explainFailure(error).code;
    } finally {
      await sql.end({ timeout: 0 });
    }
  });
}

const KAFKA_ANSWERS = readKafkaAnswers();
const SASL_HANDSHAKE = 17;
const SASL_AUTHENTICATE = 36;

/** Answers ApiVersions and Metadata as recorded, and the requests of SASL. */
function serveKafka(socket: Socket, random: () => Random): void {
  const recorded = (key: number) => KAFKA_ANSWERS.find(({ apiKey }) => apiKey === key)!;
  let rest = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      const request = rest.subarray(4, end);
      rest = rest.subarray(end);
      const [apiKey, correlationId] = [request.readInt16BE(0), request.readInt32BE(4)];
      const now = random();
      if (apiKey === SASL_HANDSHAKE) send(socket, handshakeAnswer(correlationId, now), now);
      else if (apiKey === SASL_AUTHENTICATE) send(socket, authenticateAnswer(request, correlationId, now), now);
      else send(socket, answerFrame(recorded(apiKey), correlationId), now);
    }
  });
}

/** Version 1: error_code i16, mechanisms [string]. */
function handshakeAnswer(correlationId: number, random: Random): Buffer {
  const mechanisms = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'];
  const body = Buffer.alloc(2 + 4);
  body.writeInt16BE(random() < 0.1 ? 33 : 0, 0);
  body.writeInt32BE(mechanisms.length, 2);
  const names = mechanisms.map((name) => Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name)]));
  return frame(correlationId, Buffer.concat([body, ...names]), { isTagged: false });
}

/** Version 2: error_code i16, error_message compact nullable string, auth_bytes compact bytes, session_lifetime_ms i64, tags. */
function authenticateAnswer(request: Buffer, correlationId: number, random: Random): Buffer {
  const said = request.toString('latin1');
  const bytes = Buffer.from(/n,,n=/.test(said) ? scramChallenge(said, random) : 'v=c2lnbmF0dXJl');
  const errorCode = Buffer.alloc(2);
  errorCode.writeInt16BE(random() < 0.1 ? 58 : 0);
  const lifetime = Buffer.alloc(8);
  lifetime.writeBigInt64BE(pick(random, [0n, 1n, -1n, 2n ** 62n]));
  const body = Buffer.concat([errorCode, Buffer.from([0, bytes.length + 1]), bytes, lifetime, Buffer.from([0])]);
  return frame(correlationId, body, { isTagged: true });
}

function frame(correlationId: number, body: Buffer, { isTagged }: { readonly isTagged: boolean }): Buffer {
  return answerFrame({ note: '', apiKey: 0, apiVersion: 0, hasTaggedHeader: isTagged, body }, correlationId);
}

/** Logins to Kafka, by each mechanism. */
export function kafkaLogins(): Promise<FuzzTarget> {
  return loginTarget('kafka-logins', serveKafka, async (port, random) => {
    const mechanism = pick(random, ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const);
    const sasl: KafkaSaslConfig = { mechanism, username: 'user', password: textSecret('password') };
    const timeouts = { connectTimeoutMs: CLIENT_TIMEOUT_MS, requestTimeoutMs: CLIENT_TIMEOUT_MS };
    const cluster = new Cluster(clientConfig([port], { sasl, ...timeouts }), pino({ level: 'silent' }));
    try {
      await cluster.readMetadata(Object.values(RECORDED_TOPICS));
      return 'answer';
    } catch (error) {
      if (error instanceof NotifierError) return error.code;
      throw error;
    } finally {
      cluster.close();
    }
  });
}
