/** Looks at slot and publications without a server: the queries are answered by their text. */
import { expect, test } from 'bun:test';
import type { Sql } from 'postgres';
import type { OwnedConnection } from '../../../src/postgres/client/owned-connection.ts';
import type { PreparedSlot } from '../../../src/postgres/setup/prepare-slot.ts';
import type { LedgerKeeper } from '../../../src/slot/ledger-keeper.ts';
import { watchSlot } from '../../../src/slot/watch.ts';
import { SlotStatus } from '../../../src/status/slot-status.ts';
import { recordingLogger } from '../../support/service/recording-logger.ts';

const ENTRY_OID = 99;

/** A server whose publication has an entry for a table that was renamed. */
function fakeControl(): Sql {
  const publication = {
    oid: '7',
    pubname: 'invoice',
    owner: 'app',
    puballtables: false,
    tables: [{ oid: 70, entryOid: ENTRY_OID, filtered: false, columns: null }],
    schemas: [],
    comment: null,
    server_lsn: '0/40',
  };
  const answer = (strings: TemplateStringsArray) => {
    const text = strings.join('?');
    if (text.includes('AS walsenders')) return Promise.resolve([{ slots: [], walsenders: [] }]);
    return Promise.resolve(text.includes('FROM pg_publication WHERE') ? [publication] : []);
  };
  return answer as unknown as Sql;
}

/** @param keep of the ledger */
async function watch(
  keep: () => Promise<void>,
  status = new SlotStatus({ database: 'db', slot: 'slot', namespaces: ['invoice'] }),
): Promise<unknown> {
  const ended = new AbortController();
  const watching = watchSlot({
    control: { sql: fakeControl(), socket: { destroyed: false } } as unknown as OwnedConnection,
    controlError: () => undefined,
    slot: 'slot',
    publishing: new Map([['invoice', { replicaIdentity: 'full', publishColumns: 'all' }]]),
    configuration: '0badc0de',
    isConfiguredSlot: () => true,
    statusLabels: new Map(),
    prepared: { serverMajor: 17, serverVersionNumber: 170_005 } as unknown as PreparedSlot,
    ledger: { keep, configurations: [], entryOids: new Map([['invoice', [ENTRY_OID]]]) } as unknown as LedgerKeeper,
    status,
    log: recordingLogger().logger,
    signal: ended.signal,
  }).catch((error: unknown) => error);
  const outcome = await Promise.race([watching, new Promise((resolve) => setTimeout(resolve, 200, 'still watching'))]);
  ended.abort();
  return outcome;
}

test.each([
  ['waits', () => new Promise<never>(() => {})],
  ['fails', () => Promise.reject(new Error('no answer'))],
])('an altered publication ends the stream at once, even if the write of the ledger %s', async (_, keep) => {
  expect(await watch(keep)).toMatchObject({ code: 'publication_altered' });
});

test('a warning names the release that the server needs', async () => {
  const status = new SlotStatus({ database: 'db', slot: 'slot', namespaces: ['invoice'] });
  await watch(async () => {}, status);
  expect(status.warnings.current).toEqual([
    expect.objectContaining({ code: 'outdated_server', advice: expect.stringContaining('17.6') }),
  ]);
});
