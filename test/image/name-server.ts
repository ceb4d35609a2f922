/** A name server that resolves every name to 127.0.0.1 and no name to an IPv6 address (RFC 1035). */

/** A running name server; disposal stops it. */
export interface NameServer extends Disposable {
  readonly address: string;
  /** Names that were queried */
  readonly asked: ReadonlySet<string>;
}

const [TYPE_A, IS_ANSWER, HEADER_BYTES] = [1, 0x8180, 12];

/** Starts on port 53 of a random address in 127.53.0.0/16. Needs root. */
export async function startNameServer(): Promise<NameServer> {
  const asked = new Set<string>();
  const address = `127.53.${1 + Math.floor(Math.random() * 250)}.${1 + Math.floor(Math.random() * 250)}`;
  const socket = await Bun.udpSocket({
    hostname: address,
    port: 53,
    socket: {
      data(_, query, port, from) {
        const labels: string[] = [];
        let at = HEADER_BYTES;
        for (let length = query[at]!; length > 0; length = query[at]!) {
          labels.push(query.toString('latin1', at + 1, at + 1 + length));
          at += 1 + length;
        }
        asked.add(labels.join('.').toLowerCase());
        const question = query.subarray(HEADER_BYTES, at + 5);
        const isKnown = question.readUInt16BE(question.length - 4) === TYPE_A;
        const header = Buffer.alloc(HEADER_BYTES);
        query.copy(header, 0, 0, 2);
        header.writeUInt16BE(IS_ANSWER, 2);
        header.writeUInt16BE(1, 4);
        header.writeUInt16BE(isKnown ? 1 : 0, 6);
        // Pointer to the name of the question, type A, class IN, TTL 60 s, 4 bytes of address.
        const record = [0xc0, HEADER_BYTES, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1];
        socket.send(Buffer.concat([header, question, Buffer.from(isKnown ? record : [])]), port, from);
      },
    },
  });
  return { address, asked, [Symbol.dispose]: () => socket.close() };
}
