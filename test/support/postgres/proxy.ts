/**
 * A TCP proxy in front of PostgreSQL, with gates for the standby status updates of logical replication. Plaintext only.
 * Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
 */
import { type Frame, type Gate, Gates, type GateVerdict, startTcpProxy, type TcpProxy } from '../network/tcp-proxy.ts';

/** A standby status update on its way to the server; LSNs as 64-bit integers. */
export interface StandbyStatusFrame {
  readonly writtenLsn: bigint;
  readonly flushedLsn: bigint;
  readonly appliedLsn: bigint;
  readonly replyRequested: boolean;
}

/** A proxy whose gates see the status updates of clients. */
export interface PostgresProxy extends TcpProxy {
  /** Calls `handler` for each status update before the server gets it */
  onStandbyStatus(handler: (status: StandbyStatusFrame) => GateVerdict): Gate;
}

const COPY_DATA = 0x64; // 'd'
const STANDBY_STATUS_UPDATE = 0x72; // 'r'
const STANDBY_STATUS_UPDATE_BYTES = 34;
const MESSAGE_HEADER_BYTES = 5;
/** Request codes in place of the protocol version: cancel, TLS, GSSAPI */
const REQUEST_CODES = { from: 80877102, to: 80877104 } as const;

/** Starts a proxy in front of a server. */
export async function startPostgresProxy(target: {
  readonly host: string;
  readonly port: number;
}): Promise<PostgresProxy> {
  const statuses = new Gates<StandbyStatusFrame>(() => proxy.changed());
  const splitter = () => {
    const takeMessages = frontendMessages();
    return {
      toServer: (chunk: Buffer): Frame[] =>
        takeMessages(chunk).map((bytes) => {
          const status = standbyStatus(bytes);
          return { bytes, ask: status && (() => statuses.ask(status)) };
        }),
      toClient: (bytes: Buffer): Frame[] => [{ bytes }],
    };
  };
  const proxy = await startTcpProxy({ host: target.host, port: target.port, splitter });
  return Object.assign(proxy, {
    onStandbyStatus: (handler: (status: StandbyStatusFrame) => GateVerdict) => statuses.set(handler),
  });
}

/** Splits a client's stream into messages: start-up messages have no type byte. The length counts itself. */
function frontendMessages(): (chunk: Buffer) => Buffer[] {
  let rest: Buffer = Buffer.alloc(0);
  let started = false;
  return (chunk) => {
    const messages: Buffer[] = [];
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (;;) {
      const lengthAt = started ? 1 : 0;
      if (rest.length < (started ? MESSAGE_HEADER_BYTES : 8)) return messages;
      const end = lengthAt + rest.readInt32BE(lengthAt);
      if (rest.length < end) return messages;
      if (!started) {
        const code = rest.readInt32BE(4);
        started = code < REQUEST_CODES.from || code > REQUEST_CODES.to;
      }
      messages.push(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
  };
}

function standbyStatus(message: Buffer): StandbyStatusFrame | undefined {
  const at = MESSAGE_HEADER_BYTES;
  if (message.length !== at + STANDBY_STATUS_UPDATE_BYTES) return undefined;
  if (message[0] !== COPY_DATA || message[at] !== STANDBY_STATUS_UPDATE) return undefined;
  return {
    writtenLsn: message.readBigUInt64BE(at + 1),
    flushedLsn: message.readBigUInt64BE(at + 9),
    appliedLsn: message.readBigUInt64BE(at + 17),
    replyRequested: message[at + 33] === 1,
  };
}
