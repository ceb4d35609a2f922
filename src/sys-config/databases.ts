/**
 * The databases of epg_connector, which passes them to epgsql unchanged, except that Vault may provide user and password.
 * Source: epg_connector, `epg_connector_app.erl`; epgsql, `epgsql:connect_opts()`.
 */

import { carryOver, type ImportOutput, type ImportPlace } from './carry-over.ts';
import { Settings } from './settings.ts';
import { importTlsOptions, NO_OPTIONS, type Verification } from './ssl-options.ts';
import { isAtom, type Setting, textOf } from './term.ts';
import { hostText, plainText, wholeNumber } from './values.ts';

/** Describes where Vault stores a field of a database's credentials. */
type Vault = (ref: string, field: 'pg_user' | 'pg_password') => string;

interface DatabaseOutput extends ImportOutput {
  /** Undefined when the old file does not use Vault */
  readonly vault: Vault | undefined;
}

/** Converts the section `epg_connector`; `canal` is the section of its Vault client. */
export function importDatabases(connector: Setting, canal: Setting | undefined, output: ImportOutput): void {
  const settings = Settings.read(connector, output.report);
  if (settings === undefined) return;
  const databases = settings.take('databases');
  const vault = readVault(settings, canal, output);
  settings.drop(
    ['pools', 'async', 'force_garbage_collect'],
    'configures connection pools, which cdc-notifier does not have',
  );
  settings.reportRest();
  const entries = databases === undefined ? undefined : Settings.read(databases, output.report);
  for (const [ref, database] of entries?.rest() ?? []) importDatabase(ref, database, { ...output, vault });
}

/** Newer versions have a path for each database, older ones one path for all. */
function readVault(settings: Settings, canal: Setting | undefined, { report }: ImportOutput): Vault | undefined {
  const tokenPath = settings.take('vault_token_path');
  const role = settings.take('vault_role');
  const pathForAll = settings.take('vault_secret_key_path') ?? settings.take('vault_key_pg_creds');
  const pathForEach = settings.take('vault_secret_key_paths');
  const sign = [canal, tokenPath, role, pathForAll, pathForEach].find((setting) => setting !== undefined);
  if (sign === undefined) return undefined;
  report.addDropped(sign, 'cdc-notifier does not read Vault; comments at the credentials give their paths in Vault');
  const paths = pathForEach === undefined ? undefined : Settings.read(pathForEach, report);
  const client = canal === undefined ? undefined : Settings.read(canal, report);
  const mount = textIn(client?.take('kvv2_secret_mount_path'))?.replaceAll(/^\/|(\/data)?\/?$/g, '') ?? 'secret';
  return (ref, field) => {
    const [, pathOfThis] = paths?.rest().find(([key]) => key === ref) ?? [];
    const given = textIn(pathOfThis) ?? textIn(pathForAll);
    const path =
      given === undefined
        ? `${mount}/pg_creds/${ref} (older versions: ${mount}/epg_connector/pg_creds)`
        : `${mount}/${given}`;
    return `pg_creds.${field} of ${path} in Vault (role ${textIn(role) ?? 'epg_connector'})`;
  };
}

function textIn(setting: Setting | undefined): string | undefined {
  return setting === undefined ? undefined : textOf(setting.term);
}

function importDatabase(ref: string, database: Setting, { vault, ...output }: DatabaseOutput): void {
  const { draft, report } = output;
  const place: ImportPlace = { ...output, target: ['databases', ref] };
  const settings = Settings.read(database, report);
  if (settings === undefined) return;
  draft.setMapping(place.target, database);
  const host = carryOver(settings, 'host', { ...place, read: hostText });
  carryOver(settings, 'port', { ...place, read: wholeNumber });
  carryOver(settings, 'database', { ...place, read: plainText });
  importCredentials(settings, database, { ...place, ref, vault });
  importTls(settings, host, { ...output, target: [...place.target, 'tls'] });
  settings.drop(
    ['timeout', 'async', 'codecs', 'nulls', 'replication', 'tcp_opts', 'socket_active', 'application_name'],
    'configures connections, which cdc-notifier opens differently',
  );
  settings.reportRest();
}

interface Credentials extends ImportPlace {
  readonly ref: string;
  readonly vault: Vault | undefined;
}

function importCredentials(settings: Settings, database: Setting, { ref, vault, ...place }: Credentials): void {
  const { target, draft, report } = place;
  const vaultUser = vault?.(ref, 'pg_user');
  const comment = vaultUser === undefined ? undefined : `With Vault, ${vaultUser}`;
  const username = carryOver(settings, 'username', { ...place, read: plainText, comment });
  if (vaultUser !== undefined) {
    const setting = { term: database.term, steps: [...database.steps, 'username'] };
    const message =
      username === undefined
        ? `must be added: ${vaultUser}`
        : `was overridden by Vault when available: compare it with ${vaultUser}`;
    report.addQuestion(setting, message, [...target, 'username']);
  }
  const secret = settings.take('password');
  if (secret === undefined && vault === undefined) return;
  const passwordPlace = { secret, owner: ref, origin: database, comment: vault?.(ref, 'pg_password') };
  draft.setSecret([...target, 'password'], passwordPlace);
}

function importTls(settings: Settings, host: string | undefined, { target, draft, report }: ImportPlace): void {
  const ssl = settings.take('ssl');
  const options = settings.take('ssl_opts');
  if (ssl === undefined || isAtom(ssl.term, 'false')) {
    if (options !== undefined) report.addDropped(options, 'has no effect without ssl');
    return;
  }
  if (isAtom(ssl.term, 'true')) {
    report.addQuestion(ssl, 'also allowed plaintext, for a server without TLS; the new configuration requires TLS');
  } else if (!isAtom(ssl.term, 'required')) {
    report.addQuestion(ssl, 'is not true, false or required; the new configuration requires TLS');
  }
  const origin = options ?? ssl;
  draft.setMapping(target, ssl);
  draft.set([...target, 'mode'], 'verify-full', { origin });
  const verification = options === undefined ? NO_OPTIONS : importTlsOptions(options, { target, draft, report });
  const mode = modeOf(verification);
  draft.set([...target, 'mode'], mode, { origin });
  if (verification.verify === 'default') {
    const message =
      mode === 'require'
        ? 'has no CA certificates: the server was not verified, and still is not; prefer mode verify-full with ca'
        : 'has no verify_peer: before OTP 26 the server was not verified, now it is';
    report.addQuestion(origin, message);
  }
  const { serverName } = verification;
  if (mode === 'verify-full' && serverName !== undefined && textOf(serverName.term) !== host) {
    report.addQuestion(
      serverName,
      'differs from host, which is the name verified now; mode verify-ca verifies no name',
    );
  }
}

function modeOf({ verify, serverName, hasAuthorities }: Verification): 'require' | 'verify-ca' | 'verify-full' {
  if (verify === 'none' || (verify === 'default' && !hasAuthorities)) return 'require';
  return serverName !== undefined && isAtom(serverName.term, 'disable') ? 'verify-ca' : 'verify-full';
}
