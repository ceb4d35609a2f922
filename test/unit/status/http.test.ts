import { afterEach, describe, expect, test } from 'bun:test';
import { connect } from 'node:net';
import { join } from 'node:path';
import { NotifierError } from '../../../src/errors.ts';
import { type HttpListener, startHttpListener } from '../../../src/status/http.ts';
import type { SlotStatus } from '../../../src/status/slot-status.ts';
import { PROJECT_DIRECTORY } from '../../support/process/directories.ts';
import { runProgram } from '../../support/process/run-program.ts';
import { lintExposition, parseExposition } from '../../support/service/exposition.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';
import { createStatus, streamView } from '../../support/service/statuses.ts';

const PATHS = ['/live', '/ready', '/health', '/status', '/metrics'] as const;

let listener: HttpListener | undefined;
afterEach(() => listener?.stop());

function start(statuses: readonly SlotStatus[] = [readyStatus()], port = 0, host = '127.0.0.1') {
  const { logger, lines } = recordingLogger();
  const config = { host, port, inFlightLimitMs: 30_000 };
  listener = startHttpListener({ config, statuses, version: '1.2.3', log: logger });
  const { port: actual } = listener;
  return {
    lines,
    port: actual,
    get: (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${actual}${path}`, init),
  };
}

function readyStatus(): SlotStatus {
  const status = createStatus();
  status.stream = streamView({ lastInboundMs: performance.now() });
  return status;
}

/** Status line of the response to a request, byte for byte. */
async function statusLine(port: number, request: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  socket.end(request);
  let response = '';
  for await (const chunk of socket) response += String(chunk);
  return response.split('\r\n', 1)[0]!;
}

const failedStatus = () =>
  createStatus({
    slot: 'sick',
    state: 'needs_operator',
    failures: [{ message: 'Cannot stream', advice: 'Fix it', reason: 'setup', atMs: 0 }],
  });

describe('startHttpListener', () => {
  test('logs where it listens', () => {
    const { lines, port } = start();
    expect(port).toBeGreaterThan(0);
    expect(lines).toEqual([
      { level: 'info', event: 'http_listening', host: '127.0.0.1', port, msg: 'listening for HTTP' },
    ]);
  });

  test('/live is 200 in every state of the streams', async () => {
    const response = await start([failedStatus()]).get('/live');
    expect([response.status, await response.json()]).toEqual([200, { live: true }]);
  });

  test('/ready is 200 when every stream is ready', async () => {
    const response = await start([readyStatus(), createStatus({ slot: 'two', state: 'standby' })]).get('/ready');
    expect([response.status, await response.json()]).toEqual([
      200,
      {
        ready: true,
        streams: [
          { database: 'db', slot: 'cdc_slot', state: 'streaming', ready: true, reasons: [] },
          { database: 'db', slot: 'two', state: 'standby', ready: true, reasons: [] },
        ],
      },
    ]);
  });

  test('/ready is 503 when one stream is not ready, and gives the reasons', async () => {
    const response = await start([readyStatus(), failedStatus()]).get('/ready');
    const { ready, streams } = (await response.json()) as { ready: boolean; streams: { reasons: string[] }[] };
    expect([response.status, ready]).toEqual([503, false]);
    expect(streams[1]!.reasons).toEqual(['Needs an operator, after failure 1 in a row: Cannot stream. Fix it']);
  });

  test('/health is 503 for a row that no process can deliver, which leaves /ready at 200', async () => {
    const failure = { message: 'Cannot convert', advice: 'Park it', reason: 'invalid-row', atMs: 0 } as const;
    const poisoned = createStatus({ slot: 'sick', state: 'needs_operator', failures: [failure] });
    const { get } = start([readyStatus(), poisoned]);
    const health = await get('/health');
    expect([health.status, await health.json()]).toEqual([
      503,
      {
        healthy: false,
        streams: [
          { database: 'db', slot: 'cdc_slot', state: 'streaming', healthy: true, reasons: [] },
          {
            database: 'db',
            slot: 'sick',
            state: 'needs_operator',
            healthy: false,
            reasons: ['Needs an operator, after failure 1 in a row: Cannot convert. Park it'],
          },
        ],
      },
    ]);
    expect((await get('/ready')).status).toBe(200);
  });

  test('/ready follows in_flight_limit and the clock', async () => {
    const status = readyStatus();
    const { get } = start([status]);
    status.stream = streamView({ lastInboundMs: performance.now(), inFlightSinceMs: performance.now() - 31_000 });
    expect((await get('/ready')).status).toBe(503);
    status.stream = streamView({ lastInboundMs: performance.now(), inFlightSinceMs: performance.now() - 1_000 });
    expect((await get('/ready')).status).toBe(200);
  });

  test('/status is JSON with every stream', async () => {
    const response = await start([readyStatus(), failedStatus()]).get('/status?pretty');
    const body = (await response.json()) as { version: string; streams: Record<string, unknown>[] };
    expect(response.status).toBe(200);
    expect(body.version).toBe('1.2.3');
    expect(body.streams.map(({ slot, state }) => [slot, state])).toEqual([
      ['cdc_slot', 'streaming'],
      ['sick', 'needs_operator'],
    ]);
  });

  test('/metrics is in the text format of Prometheus', async () => {
    const response = await start().get('/metrics');
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    const families = parseExposition(await response.text());
    expect(lintExposition(families)).toEqual([]);
    expect(families.has('cdc_notifier_stream_state')).toBe(true);
  });

  test.each(PATHS)('HEAD %s has the status and headers of GET and no body', async (path) => {
    const { get } = start([failedStatus()]);
    const [head, full] = await Promise.all([get(path, { method: 'HEAD' }), get(path)]);
    expect(await head.text()).toBe('');
    expect(head.status).toBe(full.status);
    expect(head.headers.get('content-type')).toBe(full.headers.get('content-type'));
    expect((await full.text()).length).toBeGreaterThan(0);
  });

  test.each(PATHS)('%s is never kept by a cache', async (path) => {
    expect((await start().get(path)).headers.get('cache-control')).toBe('no-store');
  });

  test.each(['/', '/live/', '/LIVE', '/metricsx', '/../etc/passwd', '/%2e%2e'])('%s is 404', async (path) => {
    const response = await start().get(path);
    expect(response.status).toBe(404);
    expect(await response.text()).toBe('Not found. Available paths: /live, /ready, /health, /status, /metrics\n');
  });

  test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])('%s is 405', async (method) => {
    const response = await start().get('/ready', { method });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('GET, HEAD');
  });

  test('a port in use is a clear error', () => {
    const { port } = start();
    let error: unknown;
    try {
      startHttpListener({
        config: { host: '127.0.0.1', port, inFlightLimitMs: 1 },
        statuses: [],
        version: '1.2.3',
        log: recordingLogger().logger,
      });
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(NotifierError);
    expect(error).toMatchObject({
      message: `Cannot listen for HTTP on 127.0.0.1, port ${port}`,
      code: 'http_listen',
      advice:
        'Stop the program that listens there, or choose another http.port; http.host must be an address of this machine',
      cause: { code: 'EADDRINUSE' },
    });
  });

  test('an error during a request is logged, at most once a minute, and answered with 500 and no details', async () => {
    const broken = readyStatus();
    Object.defineProperty(broken, 'slot', {
      get() {
        throw new Error('broken on purpose');
      },
    });
    const { get, lines } = start([broken]);
    for (const path of ['/status', '/metrics']) {
      const response = await get(path);
      expect([response.status, await response.text()]).toEqual([500, 'Internal error\n']);
    }
    expect(lines.slice(1).map(({ level, event }) => [level, event])).toEqual([['error', 'http_request_failed']]);
    expect((await get('/live')).status).toBe(200);
  });

  test.each([
    ['without a Host header', 'GET /live HTTP/1.0\r\n\r\n'],
    ['without a Host header, with a query', 'GET /live?from=probe HTTP/1.0\r\n\r\n'],
    ['with an empty Host header', 'GET /live HTTP/1.1\r\nHost: \r\n\r\n'],
    ['with a Host header that is malformed', 'GET /live HTTP/1.1\r\nHost: [::1\r\n\r\n'],
    ['with an absolute target', 'GET http://example.org/live HTTP/1.0\r\n\r\n'],
  ])('answers a probe %s, and logs nothing', async (_, request) => {
    const { port, lines } = start();
    for (let probe = 0; probe < 3; probe++) expect(await statusLine(port, request)).toBe('HTTP/1.1 200 OK');
    expect(lines.slice(1)).toEqual([]);
  });

  test('listens on every IPv4 address where the system has no IPv6', async () => {
    const output = await runProgram('python3', [
      join(PROJECT_DIRECTORY, 'test/support/network/without-ipv6.py'),
      process.execPath,
      '--eval',
      `import { startHttpListener } from '${PROJECT_DIRECTORY}/src/status/http.ts';
       const log = { info: (line) => console.log(JSON.stringify(line)) };
       const config = { host: '::', port: 0, inFlightLimitMs: 1 };
       const { port, stop } = startHttpListener({ config, statuses: [], version: '1', log });
       console.log((await fetch('http://127.0.0.1:' + port + '/live')).status);
       await stop();`,
    ]);
    expect(output.replace(/"port":\d+/, '"port":0')).toBe(
      '{"event":"http_listening","host":"0.0.0.0","port":0}\n200\n',
    );
  });

  test('listens on every address with ::', async () => {
    const { port } = start([], 0, '::');
    for (const address of ['127.0.0.1', '[::1]']) {
      expect((await fetch(`http://${address}:${port}/live`)).status).toBe(200);
    }
  });

  test('answers many requests at once and one after another', async () => {
    const { get } = start(
      Array.from({ length: 20 }, (_, index) => createStatus({ slot: `slot_${index}`, state: 'retrying' })),
    );
    const counts = new Map<string, number>();
    const ask = async (path: string) => {
      const response = await get(path);
      await response.text();
      const key = `${path} ${response.status}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    };
    for (let round = 0; round < 5; round++) {
      await Promise.all(Array.from({ length: 200 }, (_, index) => ask(PATHS[index % PATHS.length]!)));
    }
    expect(Object.fromEntries(counts)).toEqual({
      '/live 200': 200,
      '/ready 503': 200,
      '/health 503': 200,
      '/status 200': 200,
      '/metrics 200': 200,
    });
  }, 60_000);

  test('does not read what is sent along', async () => {
    const { get } = start();
    const body = new Uint8Array(1_000_000);
    expect((await get('/ready', { method: 'POST', body })).status).toBe(405);
    expect((await get('/ready')).status).toBe(200);
  });

  test('stop closes the port, also with a connection open', async () => {
    const { get, port } = start();
    await get('/live');
    await listener!.stop();
    await expect(get('/live')).rejects.toThrow();
    expect(start([], port).port).toBe(port);
  });
});
