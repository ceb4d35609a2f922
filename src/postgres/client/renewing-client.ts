/**
 * A client of the `postgres` driver that outlives its connection. The driver would reconnect by itself, but carries the
 * old connection's state into the new one (postgres 3.4.9): the first query then fails with the error that ended the old
 * connection, and a query between a socket's `error` and its `close` never gets an answer, nor does any after it. So each
 * connection gets a client of its own.
 */
import type { Sql } from 'postgres';

/** A client that calls `open` for its first query, and for the first one after `onLost` was called. Its `end` is final. */
export function renewingClient(open: (onLost: () => void) => Sql): Sql {
  let current: Sql | undefined;
  let ended = false;
  const client = (): Sql => {
    if (current !== undefined) return current;
    const opened: Sql = open(() => {
      if (current === opened && !ended) current = undefined;
    });
    current = opened;
    return opened;
  };
  return new Proxy(() => {}, {
    apply: (_target, _this, parameters) =>
      Reflect.apply(client() as (...args: unknown[]) => unknown, undefined, parameters),
    get: (_target, key) => {
      const value: unknown = Reflect.get(client(), key);
      if (key !== 'end' && key !== 'close') return value;
      return (...parameters: unknown[]) => {
        ended = true;
        return Reflect.apply(value as (...args: unknown[]) => unknown, undefined, parameters);
      };
    },
  }) as unknown as Sql;
}
