/**
 * The databases of epg_connector. They go to epgsql as they are, except that Vault may give user and password.
 * Source: epg_connector, `epg_connector_app.erl`; epgsql, `epgsql:connect_opts()`.
 */

import { carryOver, type ImportOutput, type ImportPlace } from './carry-over.ts';
import type { Setting } from './import-report.ts';
import { hostText, plainText, Settings, wholeNumber } from './settings.ts';
import { importTlsOptions, NO_OPTIONS, type Verification } from './ssl-options.ts';
import { isAtom, textOf } from './term.ts';

/** Tells where Vault keeps a field of a database's credentials. */
type Vault = (ref: string, field: 'pg_user' | 'pg_password') => string;

interface DatabaseOutput extends ImportOutput {
  /** Undefined when nothing asks for Vault */
  readonly vault: Vault | undefined;
}

/** Carries over the section `epg_connector`; `canal` is that of its client of Vault. */
export function importDatabases(connector: Setting, canal: Setting | undefined, output: ImportOutput): void {
  const settings = Settings.read(connector, output.findings);
  if (settings === undefined) return;
  const databases = settings.take('databases');
  const vault = readVault(settings, canal, output);
  settings.drop(['pools', 'async', 'force_garbage_collect'], 'concerns pools of connections, which do not exist here');
  settings.reportRest();
  const entries = databases === undefined ? undefined : Settings.read(databases, output.findings);
  for (const [ref, database] of entries?.rest() ?? []) importDatabase(ref, database, { ...output, vault });
}

/** Newer versions know a path for each database, older ones one for all. */
function readVault(settings: Settings, canal: Setting | undefined, { findings }: ImportOutput): Vault | undefined {
  const tokenPath = settings.take('vault_token_path');
  const role = settings.take('vault_role');
  const pathForAll = settings.take('vault_secret_key_path') ?? settings.take('vault_key_pg_creds');
  const pathForEach = settings.take('vault_secret_key_paths');
  const sign = [canal, tokenPath, role, pathForAll, pathForEach].find((setting) => setting !== undefined);
  if (sign === undefined) return undefined;
  findings.drop(sign, 'Vault is not asked here; comments at the credentials tell where they are in it');
  const paths = pathForEach === undefined ? undefined : Settings.read(pathForEach, findings);
  const client = canal === undefined ? undefined : Settings.read(canal, findings);
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
  const { draft, findings } = output;
  const place: ImportPlace = { ...output, target: ['databases', ref] };
  const settings = Settings.read(database, findings);
  if (settings === undefined) return;
  draft.setMapping(place.target, database);
  const host = carryOver(settings, 'host', { ...place, read: hostText });
  carryOver(settings, 'port', { ...place, read: wholeNumber });
  carryOver(settings, 'database', { ...place, read: plainText });
  importCredentials(settings, database, { ...place, ref, vault });
  importTls(settings, host, { ...output, target: [...place.target, 'tls'] });
  settings.drop(
    ['timeout', 'async', 'codecs', 'nulls', 'replication', 'tcp_opts', 'socket_active', 'application_name'],
    'concerns connections, which are opened in another way here',
  );
  settings.reportRest();
}

interface Credentials extends ImportPlace {
  readonly ref: string;
  readonly vault: Vault | undefined;
}

function importCredentials(settings: Settings, database: Setting, { ref, vault, ...place }: Credentials): void {
  const { target, draft, findings } = place;
  const vaultUser = vault?.(ref, 'pg_user');
  const comment = vaultUser === undefined ? undefined : `Where Vault answered, ${vaultUser}`;
  const username = carryOver(settings, 'username', { ...place, read: plainText, comment });
  if (vaultUser !== undefined) {
    const setting = { term: database.term, steps: [...database.steps, 'username'] };
    const message =
      username === undefined
        ? `has to be added: ${vaultUser}`
        : `gave way where Vault answered: compare it with ${vaultUser}`;
    findings.open(setting, message, [...target, 'username']);
  }
  const secret = settings.take('password');
  if (secret === undefined && vault === undefined) return;
  const passwordPlace = { secret, owner: ref, origin: database, comment: vault?.(ref, 'pg_password') };
  draft.setSecret([...target, 'password'], passwordPlace);
}

function importTls(settings: Settings, host: string | undefined, { target, draft, findings }: ImportPlace): void {
  const ssl = settings.take('ssl');
  const options = settings.take('ssl_opts');
  if (ssl === undefined || isAtom(ssl.term, 'false')) {
    if (options !== undefined) findings.drop(options, 'has no effect without ssl');
    return;
  }
  if (isAtom(ssl.term, 'true')) {
    findings.open(ssl, 'took plaintext as well, from a server without TLS; here TLS is required');
  } else if (!isAtom(ssl.term, 'required')) {
    findings.open(ssl, 'is none of true, false and required; here TLS is required');
  }
  const origin = options ?? ssl;
  draft.setMapping(target, ssl);
  draft.set([...target, 'mode'], 'verify-full', { origin });
  const verification = options === undefined ? NO_OPTIONS : importTlsOptions(options, { target, draft, findings });
  const mode = modeOf(verification);
  draft.set([...target, 'mode'], mode, { origin });
  if (verification.verify === 'default') {
    const message =
      mode === 'require'
        ? 'names no authorities: the server was not verified, and is not here; better is mode verify-full, with ca'
        : 'does not say verify_peer: before OTP 26 the server was not verified, here it is';
    findings.open(origin, message);
  }
  const { serverName } = verification;
  if (mode === 'verify-full' && serverName !== undefined && textOf(serverName.term) !== host) {
    findings.open(serverName, 'is not host, which is what is verified here; mode verify-ca would verify no name');
  }
}

function modeOf({ verify, serverName, hasAuthorities }: Verification): 'require' | 'verify-ca' | 'verify-full' {
  if (verify === 'none' || (verify === 'default' && !hasAuthorities)) return 'require';
  return serverName !== undefined && isAtom(serverName.term, 'disable') ? 'verify-ca' : 'verify-full';
}
