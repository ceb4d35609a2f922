/**
 * Where the service tells of itself over HTTP: `/live`, `/ready`, `/status` and `/metrics`. Everything is read when it is
 * asked for and is the same for everybody; nothing can be changed here, and nothing secret is told.
 */
import type { Logger } from 'pino';
import type { HttpConfig } from '../config/config.ts';
import { NotifierError } from '../errors.ts';
import { presentMoment } from './lag.ts';
import { createMetrics } from './metrics.ts';
import { reportReadiness, reportStream } from './report.ts';
import type { SlotStatus } from './slot-status.ts';

/** What to tell, and where. */
export interface HttpListenerOptions {
  readonly config: HttpConfig;
  readonly statuses: readonly SlotStatus[];
  /** Of the service */
  readonly version: string;
  readonly log: Logger;
}

/** A listener that listens. */
export interface HttpListener {
  readonly port: number;
  /** Closes the port and every connection. */
  stop(): Promise<void>;
}

type Handler = () => Response | Promise<Response>;

/** A probe must hear of the present. */
const NO_CACHE = { 'cache-control': 'no-store' };

/** @throws NotifierError when it cannot listen there: the port is in use, or the address is not one of this machine */
export function startHttpListener(options: HttpListenerOptions): HttpListener {
  const { config, log } = options;
  const handlers = createHandlers(options);
  const respond = ({ method, url }: Request) => {
    const handler = handlers.get(new URL(url).pathname);
    if (handler === undefined) return text(404, `Not found; there are ${[...handlers.keys()].join(', ')}`);
    // Bun leaves the body of the answer to HEAD away.
    if (method === 'GET' || method === 'HEAD') return handler();
    return text(405, 'Only GET and HEAD are allowed', { allow: 'GET, HEAD' });
  };
  const server = listen(config, {
    respond,
    onError(error) {
      log.error({ error }, 'an HTTP request failed');
      return text(500, 'Internal error');
    },
  });
  const port = server.port!;
  log.info({ host: config.host, port }, 'listening for HTTP');
  return { port, stop: () => server.stop(true) };
}

function createHandlers({ config, statuses, version }: HttpListenerOptions): ReadonlyMap<string, Handler> {
  const { inFlightLimitMs } = config;
  const metrics = createMetrics({ statuses, version, inFlightLimitMs });
  return new Map<string, Handler>([
    // That it is answered is the answer: the event loop turns.
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
      // Otherwise an error would be answered with a page of sources ...
      development: false,
      // ... and without it Bun would share the port with another process that listens there in the same way.
      reusePort: false,
    });
  } catch (cause) {
    throw new NotifierError(`Cannot listen for HTTP on ${host}, port ${port}`, {
      advice: 'Stop what listens there or choose another http.port; http.host must be an address of this machine',
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
