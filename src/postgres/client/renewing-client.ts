/**
 * A client of the `postgres` driver that outlives its connection. The driver would open another one itself, but carries
 * the old one's state into it (postgres 3.4.9): the first query is then answered with the error that ended the old
 * connection, and a query that is asked between a socket's `error` and its `close` is never answered, nor is any after
 * it. So each connection gets a client of its own, and is left with it.
 */
import type { Sql } from 'postgres';

/**
 * Makes a client that calls `open` for its first query and for the first after the connection was lost, which `onLost`
 * tells. Ending it is final.
 */
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
