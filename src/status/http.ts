/**
 * The HTTP listener: `/live`, `/ready`, `/status` and `/metrics`. Responses are computed for each request, are the same
 * for every client, and contain no payloads or secrets. Nothing can be changed through it.
 */
import type { Logger } from 'pino';
import type { HttpConfig } from '../config/config.ts';
import { NotifierError } from '../errors.ts';
import { presentMoment } from './lag.ts';
import { createMetrics } from './metrics.ts';
import { reportReadiness, reportStream } from './report.ts';
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
    const handler = handlers.get(new URL(url).pathname);
    if (handler === undefined) return text(404, `Not found. Available paths: ${[...handlers.keys()].join(', ')}`);
    // Bun omits the body of the response to HEAD.
    if (method === 'GET' || method === 'HEAD') return handler();
    return text(405, 'Only GET and HEAD are allowed', { allow: 'GET, HEAD' });
  };
  const server = listen(config, {
    respond,
    onError(error) {
      log.error({ event: 'http_request_failed', error }, 'HTTP request failed');
      return text(500, 'Internal error');
    },
  });
  const port = server.port!;
  log.info({ event: 'http_listening', host: config.host, port }, 'listening for HTTP');
  return { port, stop: () => server.stop(true) };
}

function createHandlers({ config, statuses, version }: HttpListenerOptions): ReadonlyMap<string, Handler> {
  const { inFlightLimitMs } = config;
  const metrics = createMetrics({ statuses, version, inFlightLimitMs });
  return new Map<string, Handler>([
    // A response at all shows that the event loop runs.
    ['/live', () => json(200, { live: true })],
    [
      '/ready',
      () => {
        const report = reportReadiness(statuses, { ...presentMoment(), inFlightLimitMs });
        return json(report.ready ? 200 : 503, report);
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

function listen(
  { host, port }: HttpConfig,
  on: { respond(request: Request): Response | Promise<Response>; onError(error: Error): Response },
): Bun.Server<undefined> {
  try {
    return Bun.serve({
      hostname: host,
      port,
      fetch: on.respond,
      error: on.onError,
      // In development mode Bun answers an error with a page of source code ...
      development: false,
      // ... and with reusePort it shares the port with another process that listens there in the same way.
      reusePort: false,
    });
  } catch (cause) {
    throw new NotifierError(`Cannot listen for HTTP on ${host}, port ${port}`, {
      code: 'http_listen',
      advice:
        'Stop the program that listens there, or choose another http.port; http.host must be an address of this machine',
      cause,
    });
  }
}

function json(status: number, body: unknown): Response {
  return Response.json(body, { status, headers: NO_CACHE });
}

function text(status: number, body: string, headers: Record<string, string> = {}): Response {
  return new Response(`${body}\n`, { status, headers: { ...NO_CACHE, ...headers } });
}
