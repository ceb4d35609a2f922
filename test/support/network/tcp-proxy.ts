/**
 * A TCP proxy of 127.0.0.1 that does to connections what networks do: cuts them, lets them hang half-open, delays,
 * trickles, resets in the middle of a frame. It runs in this process; `kafka-proxy.ts` and `postgres-proxy.ts` add gates
 * that know the protocol, so that a test can stop the world at a named point of the stream.
 */
import { createServer, connect as openTcp, type Server, type Socket } from 'node:net';
import { freePort } from './ports.ts';

/** What becomes of a frame at a gate: `hold` keeps it, and all behind it in its direction, until the gate is released. */
export type GateVerdict = 'forward' | 'hold' | 'drop' | 'reset';

/** A gate that was set; disposal releases it. */
export interface Gate extends Disposable {
  /** Takes the gate away; what it holds is forwarded. What it holds for a sender that has gone is never forwarded. */
  release(): void;
}

/** From whom to whom: the client is the one that connects to the proxy. */
export type Direction = 'toServer' | 'toClient';

/** A running proxy; disposal resets its connections and frees its port. Faults hold for new connections, too. */
export interface TcpProxy extends AsyncDisposable {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** Connections of clients that are open now */
  readonly connectionCount: number;
  /** Resets all connections, on both sides (RST) */
  cut(): void;
  /** True: connections are refused from now on, those that exist go on. False: they are taken again, on the same port */
  refuse(refusing: boolean): Promise<void>;
  /** Lets nothing through any more, not even the end of a connection; sockets stay open, new ones are accepted */
  halfOpen(): void;
  /** Holds every byte back for so long, each way; 0 ends it */
  latency(delayMs: number): void;
  /** Lets so many bytes through each 10 ms, each way and connection; 0 ends it */
  trickle(bytesPerTick: number): void;
  /**
   * Lets exactly so many more bytes pass in one direction, all connections together, then resets the connection once;
   * resolves when that is done
   */
  resetAfter(bytes: number, direction?: Direction): Promise<void>;
  /** Ends half-open, latency, trickle, reset and refusal; connections that survived go on where they were. Gates stay. */
  heal(): Promise<void>;
  /** Passes what servers send through `mutate`; undefined ends it */
  corrupt(mutate: ((bytes: Buffer) => Buffer) | undefined): void;
}

/** What is decided about one frame when its turn comes. */
export interface Passage {
  readonly verdict: GateVerdict;
  /** Tells whether a frame that is held may go on */
  readonly isReleased: () => boolean;
}

/** A piece of what one side has sent that is forwarded as a whole or not at all. */
export interface Frame {
  readonly bytes: Buffer;
  /** Asks the gates; absent: forward */
  readonly ask?: (() => Passage) | undefined;
}

/** Takes the bytes of one connection apart, a function for each direction; what is not whole yet is kept inside. */
export type FrameSplitter = Readonly<Record<Direction, (chunk: Buffer) => readonly Frame[]>>;

/** Where the server is, and how its protocol is framed. */
export interface TcpProxyOptions {
  readonly host: string;
  readonly port: number;
  /** Called for each connection; without it bytes are forwarded as they come */
  readonly splitter?: (() => FrameSplitter) | undefined;
}

const FORWARD: Passage = { verdict: 'forward', isReleased: () => true };
const TICK_MS = 10;
/** What may wait inside for one direction of a connection; above it the sender is not read, as with full buffers */
const QUEUE_LIMIT_BYTES = 4_194_304;
/** Bytes and reset would otherwise arrive at once, and a reader may then see the reset alone */
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

  /** Asks the gates in the order in which they were set; the first that does not forward decides. */
  ask(frame: T): Passage {
    for (const gate of [...this.#gates]) {
      const verdict = gate.handler(frame);
      if (verdict !== 'forward') return { verdict, isReleased: () => !gate.isSet };
    }
    return FORWARD;
  }
}

/** The faults that are on. */
interface Faults {
  halfOpen: boolean;
  latencyMs: number;
  bytesPerTick: number;
  reset: { readonly direction: Direction; remainingBytes: number; readonly done: () => void } | undefined;
  corrupt: ((bytes: Buffer) => Buffer) | undefined;
}

/** Starts a proxy in front of a server, which need not be there yet. */
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
      // A gate's handler failed: nobody waits for this promise, so the runner of the tests is told.
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

/** A client's connection and the one to the server that belongs to it. */
class Connection {
  readonly #client: Socket;
  readonly #options: TcpProxyOptions;
  readonly #faults: Faults;
  #server: Socket | undefined;
  #closed = false;
  #waiting: (() => void)[] = [];

  constructor(client: Socket, options: TcpProxyOptions, faults: Faults) {
    this.#client = client;
    this.#options = options;
    this.#faults = faults;
  }

  /** Resolves when the connection is over, one way or another. */
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

  /** Lets everything that waits look again whether it may go on. */
  wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }

  /** Ends both sides by RST. */
  reset(): void {
    this.#closed = true;
    this.#client.resetAndDestroy();
    this.#server?.resetAndDestroy();
    this.wake();
  }

  /** A side that fails takes the other with it, unless nothing gets through. */
  #watch(socket: Socket): void {
    socket.on('drain', () => this.wake());
    socket.on('error', async () => {
      await this.#until(() => !this.#faults.halfOpen);
      this.reset();
    });
  }

  /** Waits until `condition` holds, or the connection is over. */
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
      await this.#until(() => !this.#faults.halfOpen);
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

/** What one side has sent and was not looked at yet. */
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
    // A reset ends it as well: `close` comes after each kind of end.
    for (const event of ['end', 'close']) {
      source.once(event, () => {
        this.#ended = true;
        onChange();
      });
    }
  }

  /** True when the sender has ended its side; what it sent before may still be here. */
  get ended(): boolean {
    return this.#ended;
  }

  /** True when `take` tells something. */
  get hasMore(): boolean {
    return this.#ended || this.#chunks.length > 0;
  }

  /** The next chunk and when it came (performance.now()); undefined after the last one. */
  take(): { readonly chunk: Buffer; readonly arrivedMs: number } | undefined {
    const next = this.#chunks.shift();
    this.#bytes -= next?.chunk.length ?? 0;
    if (this.#bytes <= QUEUE_LIMIT_BYTES) this.#source.resume();
    return next;
  }
}
