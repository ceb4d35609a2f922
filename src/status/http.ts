/**
 * The HTTP listener: `/live`, `/ready`, `/health`, `/status` and `/metrics`. Responses are computed for each request, are the same
 * for every client, and contain no payloads or secrets. Nothing can be changed through it.
 */
import type { Logger } from 'pino';
import type { HttpConfig } from '../config/config.ts';
import { NotifierError } from '../errors.ts';
import { presentMoment } from './lag.ts';
import { createMetrics } from './metrics.ts';
import { reportHealth, reportReadiness, reportStream } from './report.ts';
import type { SlotStatus } from './slot-status.ts';

/** Options of `startHttpListener`. */
export interface HttpListenerOptions {
  readonly config: HttpConfig;
  readonly statuses: readonly SlotStatus[];
  /** Version of the service */
  readonly version: string;
  readonly log: Logger;
}

/** A running listener. */
export interface HttpListener {
  readonly port: number;
  /** Closes the port and every connection. */
  stop(): Promise<void>;
}

type Handler = () => Response | Promise<Response>;

const ERROR_LINE_INTERVAL_MS = 60_000;

/** A probe needs the current state. */
const NO_CACHE = { 'cache-control': 'no-store' };

/**
 * Starts to listen at `http.host` and `http.port`.
 * @throws NotifierError when the port is in use, or the address does not belong to this machine
 */
export function startHttpListener(options: HttpListenerOptions): HttpListener {
  const { config, log } = options;
  const handlers = createHandlers(options);
  const respond = ({ method, url }: Request) => {
    const handler = handlers.get(pathOf(url));
    if (handler === undefined) return text(404, `Not found. Available paths: ${[...handlers.keys()].join(', ')}`);
    // Bun omits the body of the response to HEAD.
    if (method === 'GET' || method === 'HEAD') return handler();
    return text(405, 'Only GET and HEAD are allowed', { allow: 'GET, HEAD' });
  };
  let nextErrorLineMs = 0;
  const server = listen(config, {
    respond,
    onError(error) {
      // A client can repeat a request as often as it likes.
      if (performance.now() >= nextErrorLineMs) {
        log.error({ event: 'http_request_failed', error }, 'HTTP request failed');
        nextErrorLineMs = performance.now() + ERROR_LINE_INTERVAL_MS;
      }
      return text(500, 'Internal error');
    },
  });
  const { hostname: host } = server;
  const port = server.port!;
  log.info({ event: 'http_listening', host, port }, 'listening for HTTP');
  return { port, stop: () => server.stop(true) };
}

function createHandlers({ config, statuses, version }: HttpListenerOptions): ReadonlyMap<string, Handler> {
  const { inFlightLimitMs } = config;
  const metrics = createMetrics({ statuses, version, inFlightLimitMs });
  const options = () => ({ ...presentMoment(), inFlightLimitMs });
  return new Map<string, Handler>([
    // A response at all shows that the event loop runs.
    ['/live', () => json(200, { live: true })],
    [
      '/ready',
      () => {
        const report = reportReadiness(statuses, options());
        return json(report.ready ? 200 : 503, report);
      },
    ],
    [
      '/health',
      () => {
        const report = reportHealth(statuses, options());
        return json(report.healthy ? 200 : 503, report);
      },
    ],
    [
      '/status',
      () => {
        const moment = presentMoment();
        return json(200, { version, streams: statuses.map((status) => reportStream(status, moment)) });
      },
    ],
    [
      '/metrics',
      async () =>
        new Response(await metrics.metrics(), { headers: { ...NO_CACHE, 'content-type': metrics.contentType } }),
    ],
  ]);
}

/** `::` is every address of the machine, IPv4 too; where the system has no IPv6, every address is `0.0.0.0`. */
const EVERY_ADDRESS = '::';
const EVERY_IPV4_ADDRESS = '0.0.0.0';

interface RequestHandlers {
  respond(request: Request): Response | Promise<Response>;
  onError(error: Error): Response;
}

function listen({ host, port }: Pick<HttpConfig, 'host' | 'port'>, on: RequestHandlers): Bun.Server<undefined> {
  try {
    return serve(host, port, on);
  } catch (cause) {
    if (host === EVERY_ADDRESS && isWithoutIpv6(cause)) return listen({ host: EVERY_IPV4_ADDRESS, port }, on);
    throw new NotifierError(`Cannot listen for HTTP on ${host}, port ${port}`, {
      code: 'http_listen',
      advice:
        'Stop the program that listens there, or choose another http.port; http.host must be an address of this machine',
      cause,
    });
  }
}

function isWithoutIpv6(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EAFNOSUPPORT';
}

function serve(hostname: string, port: number, on: RequestHandlers): Bun.Server<undefined> {
  return Bun.serve({
    hostname,
    port,
    fetch: on.respond,
    error: on.onError,
    // In development mode Bun answers an error with a page of source code ...
    development: false,
    // ... and with reusePort it shares the port with another process that listens there in the same way.
    reusePort: false,
  });
}

/**
 * Path of a request without its query. Bun builds `url` from the Host header: without one, as probes of HTTP/1.0 send, it
 * is the bare path, and with a malformed one it is no URL at all, so it is not parsed as one.
 */
function pathOf(url: string): string {
  return /^(?:https?:\/\/[^/]*)?([^?#]*)/.exec(url)![1]!;
}

function json(status: number, body: unknown): Response {
  return Response.json(body, { status, headers: NO_CACHE });
}

function text(status: number, body: string, headers: Record<string, string> = {}): Response {
  return new Response(`${body}\n`, { status, headers: { ...NO_CACHE, ...headers } });
}
