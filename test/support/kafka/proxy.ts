/**
 * A TCP proxy in front of a Kafka broker, with gates for requests and responses. The broker must advertise the proxy's
 * port on that listener: `startKafka({ proxied: true })` does so. Gates need plaintext.
 * Source: https://kafka.apache.org/protocol.html, "Protocol Primitive Types" and request headers
 */
import { type Frame, type Gate, Gates, type GateVerdict, startTcpProxy, type TcpProxy } from '../network/tcp-proxy.ts';

/** A whole request or response. */
export interface KafkaFrame {
  /** 0 Produce, 3 Metadata, 18 ApiVersions, 22 InitProducerId, 32 DescribeConfigs */
  readonly apiKey: number;
  readonly apiVersion: number;
  readonly correlationId: number;
  /** The frame without its length: header and body */
  readonly payload: Buffer;
}

/** A proxy whose gates see Kafka's frames; `corrupt` gets whole frames, length included. */
export interface KafkaProxy extends TcpProxy {
  /** Calls `handler` for each request with this API key before the broker gets it */
  onRequest(apiKey: number, handler: (request: KafkaFrame) => GateVerdict): Gate;
  /** Calls `handler` for each response to such a request before the client gets it */
  onResponse(apiKey: number, handler: (response: KafkaFrame) => GateVerdict): Gate;
}

/** Starts a proxy in front of a listener of a broker. */
export async function startKafkaProxy(target: { readonly host: string; readonly port: number }): Promise<KafkaProxy> {
  const requests = new Gates<KafkaFrame>(() => proxy.changed());
  const responses = new Gates<KafkaFrame>(() => proxy.changed());
  const splitter = () => {
    const takeRequests = sizedFrames();
    const takeResponses = sizedFrames();
    // A response carries only the correlation id of its request.
    const asked = new Map<number, { readonly apiKey: number; readonly apiVersion: number }>();
    return {
      toServer: (chunk: Buffer): Frame[] =>
        takeRequests(chunk).map((bytes) => {
          const payload = bytes.subarray(4);
          const [apiKey, apiVersion] = [payload.readInt16BE(0), payload.readInt16BE(2)];
          const correlationId = payload.readInt32BE(4);
          asked.set(correlationId, { apiKey, apiVersion });
          return { bytes, ask: () => requests.ask({ apiKey, apiVersion, correlationId, payload }) };
        }),
      toClient: (chunk: Buffer): Frame[] =>
        takeResponses(chunk).map((bytes) => {
          const payload = bytes.subarray(4);
          const correlationId = payload.readInt32BE(0);
          const request = asked.get(correlationId) ?? { apiKey: -1, apiVersion: -1 };
          asked.delete(correlationId);
          return { bytes, ask: () => responses.ask({ ...request, correlationId, payload }) };
        }),
    };
  };
  const proxy = await startTcpProxy({ ...target, splitter });
  const only =
    (apiKey: number, handler: (frame: KafkaFrame) => GateVerdict) =>
    (frame: KafkaFrame): GateVerdict =>
      frame.apiKey === apiKey ? handler(frame) : 'forward';
  return Object.assign(proxy, {
    onRequest: (apiKey: number, handler: (request: KafkaFrame) => GateVerdict) => requests.set(only(apiKey, handler)),
    onResponse: (apiKey: number, handler: (response: KafkaFrame) => GateVerdict) =>
      responses.set(only(apiKey, handler)),
  });
}

/** Splits a stream into frames: an i32 length, which does not count itself, then so many bytes. */
function sizedFrames(): (chunk: Buffer) => Buffer[] {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    const frames: Buffer[] = [];
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0);
      frames.push(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
    return frames;
  };
}
