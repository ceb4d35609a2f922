/**
 * A request of any size that every broker answers and that changes nothing: ApiVersions 3 with a tagged field that no broker
 * knows and each one skips (Kafka protocol guide, "Optional Tagged Fields"; KIP-482):
 *
 *     client_software_name compact string | client_software_version compact string
 *     | number of tags uvarint = 1 | tag uvarint | length uvarint | zeros
 */
import { apiVersionsV3, type Connection, ResponseError, Writer } from '@platformatic/kafka';

const API_VERSIONS = { key: 18, version: 3 } as const;
/** Far above the tags of Kafka */
const UNKNOWN_TAG = 9_999;

/**
 * Sends a request of at least this size and waits for the answer, whatever it says.
 * @throws what the connection ends with
 */
export function sendPaddedRequest(connection: Connection, bytes: number): Promise<void> {
  const body = () =>
    Writer.create()
      .appendString('cdc-notifier')
      .appendString('1')
      .appendUnsignedVarInt(1)
      .appendUnsignedVarInt(UNKNOWN_TAG)
      .appendUnsignedVarInt(bytes)
      .append(Buffer.alloc(bytes));
  return new Promise((resolve, reject) => {
    const { key, version } = API_VERSIONS;
    connection.send(key, version, body, apiVersionsV3.parseResponse, true, false, (error) => {
      if (error && !(error instanceof ResponseError)) reject(error);
      else resolve();
    });
  });
}
