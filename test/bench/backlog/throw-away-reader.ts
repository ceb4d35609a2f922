/**
 * A replication client that discards everything, for one reading: `bun test/bench/backlog/throw-away-reader.ts OPTIONS` with
 * JSON. It looks only for the end, and reads large chunks with pauses, so that the walsender sends many rows at once. It
 * confirms the end and exits as pg_recvlogical does. Its last line is the CPU time of the reading.
 */
import { connect, type Socket } from 'node:net';
import { parseLsn } from '../../../src/lsn.ts';
import { BackendFrames } from './backend-frames.ts';

interface Options {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly slot: string;
  readonly publication: string;
  /** LSN at which to exit */
  readonly end: string;
  readonly gulpBytes: number;
  readonly pauseMs: number;
}

const PROTOCOL_VERSION = 196_608; // 3.0

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function message(kind: string, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.from(kind), int32(body.length + 4), body]);
}

/** Standby status update: 'r', LSNs written, flushed and applied, clock 0, no reply requested. */
function statusUpdate(lsn: bigint): Buffer {
  const body = Buffer.alloc(34);
  body.write('r');
  for (const offset of [1, 9, 17]) body.writeBigUInt64BE(lsn, offset);
  return message('d', body);
}

function startup({ user, database }: Options): Buffer {
  const parameters = ['user', user, 'database', database, 'replication', 'database', ''];
  return message('', int32(PROTOCOL_VERSION), Buffer.from(parameters.map((text) => `${text}\0`).join('')));
}

function startReplication({ slot, publication }: Options): Buffer {
  const plugin = `proto_version '1', publication_names '"${publication}"', binary 'true', messages 'true'`;
  return message('Q', Buffer.from(`START_REPLICATION SLOT "${slot}" LOGICAL 0/0 (${plugin})\0`));
}

function read(options: Options): void {
  const end = parseLsn(options.end);
  const frames = new BackendFrames();
  const socket: Socket = connect({ host: options.host, port: options.port });
  let cpuBefore = process.cpuUsage();
  let gulped = 0;
  let hasFinished = false;
  socket.on('connect', () => socket.write(startup(options)));
  socket.on('data', (chunk: Buffer) => {
    frames.read(chunk);
    if (hasFinished) return;
    if (frames.error !== undefined) throw new Error(`The server says: ${frames.error}`);
    if (frames.takeReady()) socket.write(startReplication(options));
    if (frames.takeStarted()) {
      cpuBefore = process.cpuUsage();
      process.stderr.write('streaming initiated\n');
    }
    if (frames.reachedLsn >= end) {
      hasFinished = true;
      socket.write(Buffer.concat([statusUpdate(end), message('c')]));
      return;
    }
    if (frames.takeReplyWish()) socket.write(statusUpdate(0n));
    gulped += chunk.length;
    if (gulped < options.gulpBytes) return;
    gulped = 0;
    socket.pause();
    setTimeout(() => socket.resume(), options.pauseMs);
  });
  frames.onCopyDone = () => {
    const { user, system } = process.cpuUsage(cpuBefore);
    process.stderr.write(`CPU ${user + system} us\n`);
    socket.end(message('X'));
  };
}

read(JSON.parse(process.argv[2] ?? '') as Options);
