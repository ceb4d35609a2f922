/**
 * A TCP proxy on 127.0.0.1 that treats connections as networks do: resets them, leaves them half-open, delays, trickles,
 * resets in the middle of a frame. It runs in this process. `kafka/proxy.ts` and `postgres/proxy.ts` add gates that know the
 * protocol, so that a test can stop everything at a chosen frame of the stream.
 */
import { createServer, connect as openTcp, type Server, type Socket } from 'node:net';
import { freePort } from './ports.ts';

/** What happens to a frame at a gate: `hold` keeps it and everything after it in its direction until the gate is released. */
export type GateVerdict = 'forward' | 'hold' | 'drop' | 'reset';

/** A gate in a proxy; disposal releases it. */
export interface Gate extends Disposable {
  /** Removes the gate and forwards what it holds, unless the sender has closed its side. */
  release(): void;
}

/** Direction of bytes; the client is the side that connects to the proxy. */
export type Direction = 'toServer' | 'toClient';

/** A running proxy; disposal resets its connections and frees its port. Faults apply to new connections as well. */
export interface TcpProxy extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** Number of open client connections */
  readonly connectionCount: number;
  /** Resets all connections on both sides (RST) */
  cut(): void;
  /** True: refuses new connections, open ones stay. False: accepts them again on the same port */
  refuse(refusing: boolean): Promise<void>;
  /** Forwards nothing any more, not even the end of a connection; sockets stay open, new ones are accepted */
  halfOpen(): void;
  /** Forwards nothing more of the connections that are open now, as a NAT that has forgotten them; new ones work */
  forget(): void;
  /** Delays every byte in both directions; 0 ends it */
  latency(delayMs: number): void;
  /** Forwards so many bytes each 10 ms, per direction and connection; 0 ends it */
  trickle(bytesPerTick: number): void;
  /**
   * Forwards exactly so many more bytes in one direction, all connections together, then resets that connection, once;
   * resolves when that has happened
   */
  resetAfter(bytes: number, direction?: Direction): Promise<void>;
  /** Ends half-open, latency, trickle, reset and refusal; surviving connections continue. Gates stay. */
  heal(): Promise<void>;
  /** Applies `mutate` to what servers send; undefined ends it */
  corrupt(mutate: ((bytes: Buffer) => Buffer) | undefined): void;
}

/** The decision about one frame. */
export interface Passage {
  readonly verdict: GateVerdict;
  /** True when a held frame may be forwarded */
  readonly isReleased: () => boolean;
}

/** Bytes that are forwarded as a whole or not at all. */
export interface Frame {
  readonly bytes: Buffer;
  /** Asks the gates; without it the frame is forwarded */
  readonly ask?: (() => Passage) | undefined;
}

/** Splits the bytes of one connection into frames, a function per direction; it keeps incomplete frames. */
export type FrameSplitter = Readonly<Record<Direction, (chunk: Buffer) => readonly Frame[]>>;

/** Address of the server, and how its protocol is framed. */
export interface TcpProxyOptions {
  readonly host: string;
  readonly port: number;
  /** Called for each connection; without it bytes are forwarded as they arrive */
  readonly splitter?: (() => FrameSplitter) | undefined;
}

const FORWARD: Passage = { verdict: 'forward', isReleased: () => true };
const TICK_MS = 10;
/** Bytes queued per direction and connection; above it the proxy stops reading, like a full socket buffer */
const QUEUE_LIMIT_BYTES = 4_194_304;
/** Without it, bytes and reset arrive at once, and a reader may see the reset only */
const RESET_DELAY_MS = 10;

/** The gates of one kind of frame. */
export class Gates<T> {
  readonly #gates = new Set<{ readonly handler: (frame: T) => GateVerdict; isSet: boolean }>();
  readonly #onChange: () => void;

  /** `onChange` is called when a gate is released. */
  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  /** Sets a gate. */
  set(handler: (frame: T) => GateVerdict): Gate {
    const gate = { handler, isSet: true };
    this.#gates.add(gate);
    const release = (): void => {
      gate.isSet = false;
      this.#gates.delete(gate);
      this.#onChange();
    };
    return { release, [Symbol.dispose]: release };
  }

  /** Asks the gates in the order of `set`; the first that does not forward decides. */
  ask(frame: T): Passage {
    for (const gate of [...this.#gates]) {
      const verdict = gate.handler(frame);
      if (verdict !== 'forward') return { verdict, isReleased: () => !gate.isSet };
    }
    return FORWARD;
  }
}

/** The active faults. */
interface Faults {
  halfOpen: boolean;
  latencyMs: number;
  bytesPerTick: number;
  reset: { readonly direction: Direction; remainingBytes: number; readonly done: () => void } | undefined;
  corrupt: ((bytes: Buffer) => Buffer) | undefined;
}

/** Starts a proxy in front of a server, which need not run yet. */
export async function startTcpProxy(options: TcpProxyOptions): Promise<TcpProxy & { changed(): void }> {
  const port = await freePort();
  const faults: Faults = { halfOpen: false, latencyMs: 0, bytesPerTick: 0, reset: undefined, corrupt: undefined };
  const connections = new Set<Connection>();
  const changed = (): void => {
    for (const connection of connections) connection.wake();
  };
  const accept = (client: Socket): void => {
    const connection = new Connection(client, options, faults);
    connections.add(connection);
    const over = (): boolean => connections.delete(connection);
    void connection.run().then(over, (error: unknown) => {
      // A gate's handler threw: the unhandled rejection makes the test runner fail the test.
      over();
      connection.reset();
      throw error;
    });
  };
  let listener: Server | undefined = await listen(port, accept);
  const set = (change: Partial<Faults>): void => {
    Object.assign(faults, change);
    changed();
  };
  const cut = (): void => {
    for (const connection of connections) connection.reset();
  };
  const refuse = async (refusing: boolean): Promise<void> => {
    if (refusing) {
      listener?.close();
      listener = undefined;
    } else {
      listener ??= await listen(port, accept);
    }
  };
  return {
    host: '127.0.0.1',
    port,
    get connectionCount() {
      return connections.size;
    },
    changed,
    cut,
    refuse,
    halfOpen: () => set({ halfOpen: true }),
    forget() {
      for (const connection of connections) connection.forget();
    },
    latency: (latencyMs) => set({ latencyMs }),
    trickle: (bytesPerTick) => set({ bytesPerTick }),
    resetAfter(remainingBytes, direction = 'toClient') {
      const { promise, resolve } = Promise.withResolvers<void>();
      set({ reset: { direction, remainingBytes, done: resolve } });
      return promise;
    },
    corrupt: (corrupt) => set({ corrupt }),
    async heal() {
      set({ halfOpen: false, latencyMs: 0, bytesPerTick: 0, reset: undefined });
      await refuse(false);
    },
    async [Symbol.asyncDispose]() {
      await refuse(true);
      cut();
    },
  };
}

function listen(port: number, accept: (client: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, accept);
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

/** A client's connection and its connection to the server. */
class Connection {
  readonly #client: Socket;
  readonly #options: TcpProxyOptions;
  readonly #faults: Faults;
  #server: Socket | undefined;
  #closed = false;
  #isForgotten = false;
  #waiting: (() => void)[] = [];

  constructor(client: Socket, options: TcpProxyOptions, faults: Faults) {
    this.#client = client;
    this.#options = options;
    this.#faults = faults;
  }

  /** Resolves when the connection has ended. */
  async run(): Promise<void> {
    const { host, port, splitter } = this.#options;
    this.#watch(this.#client);
    const fromClient = new Inbox(this.#client, () => this.wake());
    await this.#until(() => !this.#faults.halfOpen);
    if (this.#closed) return;
    const server = openTcp({ host, port, allowHalfOpen: true, noDelay: true });
    this.#server = server;
    this.#watch(server);
    const fromServer = new Inbox(server, () => this.wake());
    const split = splitter?.();
    await Promise.all([
      this.#pump(fromClient, server, { direction: 'toServer', split: split?.toServer }),
      this.#pump(fromServer, this.#client, { direction: 'toClient', split: split?.toClient }),
    ]);
    this.#closed = true;
  }

  /** Makes every waiter check its condition again. */
  wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }

  /** Forwards nothing any more. */
  forget(): void {
    this.#isForgotten = true;
  }

  /** Resets both sides (RST). */
  reset(): void {
    this.#closed = true;
    this.#client.resetAndDestroy();
    this.#server?.resetAndDestroy();
    this.wake();
  }

  /** An error on one side resets both, unless the connection is half-open. */
  #watch(socket: Socket): void {
    socket.on('drain', () => this.wake());
    socket.on('error', async () => {
      await this.#until(() => !this.#faults.halfOpen);
      this.reset();
    });
  }

  /** Waits until `condition` holds or the connection has ended. */
  async #until(condition: () => boolean): Promise<void> {
    while (!this.#closed && !condition()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Forwards what one side sends until it ends. */
  async #pump(
    inbox: Inbox,
    sink: Socket,
    { direction, split }: { readonly direction: Direction; readonly split: FrameSplitter[Direction] | undefined },
  ): Promise<void> {
    for (;;) {
      await this.#until(() => inbox.hasMore);
      await this.#until(() => !this.#faults.halfOpen && !this.#isForgotten);
      if (this.#closed) return;
      const next = inbox.take();
      if (next === undefined) {
        sink.end();
        return;
      }
      const delayMs = next.arrivedMs + this.#faults.latencyMs - performance.now();
      if (this.#faults.latencyMs > 0 && delayMs > 0) await Bun.sleep(delayMs);
      for (const frame of split?.(next.chunk) ?? [{ bytes: next.chunk }]) {
        const { verdict, isReleased } = frame.ask?.() ?? FORWARD;
        if (verdict === 'reset') return this.reset();
        if (verdict === 'drop') continue;
        if (verdict === 'hold') {
          await this.#until(() => isReleased() || inbox.ended);
          if (!isReleased()) return void sink.end();
        }
        const corrupt = direction === 'toClient' ? this.#faults.corrupt : undefined;
        await this.#write(corrupt?.(frame.bytes) ?? frame.bytes, sink, direction);
        if (this.#closed) return;
      }
    }
  }

  /** Writes as fast as the faults and the reader allow. */
  async #write(bytes: Buffer, sink: Socket, direction: Direction): Promise<void> {
    const faults = this.#faults;
    for (let offset = 0; offset < bytes.length; ) {
      await this.#until(() => !faults.halfOpen && !sink.writableNeedDrain);
      if (this.#closed) return;
      const reset = faults.reset?.direction === direction ? faults.reset : undefined;
      const tickBytes = faults.bytesPerTick || Number.POSITIVE_INFINITY;
      const length = Math.min(bytes.length - offset, tickBytes, reset?.remainingBytes ?? Number.POSITIVE_INFINITY);
      if (length > 0) sink.write(bytes.subarray(offset, offset + length));
      offset += length;
      if (reset !== undefined) {
        reset.remainingBytes -= length;
        if (reset.remainingBytes === 0) {
          faults.reset = undefined;
          await Bun.sleep(RESET_DELAY_MS);
          this.reset();
          return reset.done();
        }
      }
      if (faults.bytesPerTick > 0) await Bun.sleep(TICK_MS);
    }
  }
}

/** Received bytes that were not forwarded yet. */
class Inbox {
  readonly #source: Socket;
  readonly #chunks: { readonly chunk: Buffer; readonly arrivedMs: number }[] = [];
  #bytes = 0;
  #ended = false;

  constructor(source: Socket, onChange: () => void) {
    this.#source = source;
    source.on('data', (chunk: Buffer) => {
      this.#chunks.push({ chunk, arrivedMs: performance.now() });
      this.#bytes += chunk.length;
      if (this.#bytes > QUEUE_LIMIT_BYTES) source.pause();
      onChange();
    });
    // `close` follows every kind of end, also a reset.
    for (const event of ['end', 'close']) {
      source.once(event, () => {
        this.#ended = true;
        onChange();
      });
    }
  }

  /** True when the sender has closed its side; earlier bytes may still be queued. */
  get ended(): boolean {
    return this.#ended;
  }

  /** True when `take` returns a chunk or the end. */
  get hasMore(): boolean {
    return this.#ended || this.#chunks.length > 0;
  }

  /** The next chunk and its arrival time (performance.now()); undefined after the last one. */
  take(): { readonly chunk: Buffer; readonly arrivedMs: number } | undefined {
    const next = this.#chunks.shift();
    this.#bytes -= next?.chunk.length ?? 0;
    if (this.#bytes <= QUEUE_LIMIT_BYTES) this.#source.resume();
    return next;
  }
}
