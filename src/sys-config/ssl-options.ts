/** Options of Erlang's `ssl`, as epgsql and brod pass them on. Source: OTP, `ssl:tls_client_option()`. */

import type { ImportPlace } from './carry-over.ts';
import type { Findings, Setting } from './import-report.ts';
import { plainText, Settings } from './settings.ts';
import { isAtom } from './term.ts';

/** What the options say of the other side's certificate. */
export interface Verification {
  /** `default` = nothing is said: before OTP 26 nothing is verified then */
  readonly verify: 'peer' | 'none' | 'default';
  /** A name, or the atom `disable` */
  readonly serverName: Setting | undefined;
  readonly hasAuthorities: boolean;
}

/** What no options say. */
export const NO_OPTIONS: Verification = { verify: 'default', serverName: undefined, hasAuthorities: false };

/** Files of PEM, by option. */
const PEM_FILES = { cacertfile: 'ca', certfile: 'cert', keyfile: 'key' } as const;

const NOT_NEEDED = [
  'customize_hostname_check',
  'depth',
  'hibernate_after',
  'log_alert',
  'log_level',
  'reuse_sessions',
  'secure_renegotiate',
  'session_tickets',
];

/** Writes the files that the options name into the mapping at the place, and returns what is to be decided elsewhere. */
export function importTlsOptions(options: Setting, { target, draft, findings }: ImportPlace): Verification {
  const settings = Settings.read(options, findings);
  if (settings === undefined) return NO_OPTIONS;
  for (const [option, key] of Object.entries(PEM_FILES)) {
    const file = settings.take(option);
    const path = file === undefined ? undefined : plainText(file, findings, [...target, key]);
    if (file === undefined || path === undefined) continue;
    if (!path.startsWith('/')) {
      findings.open(file, 'is a relative path: here it starts from the directory of the configuration file');
    }
    draft.set([...target, key], path, { origin: file });
  }
  const keyPassword = settings.take('password');
  if (keyPassword !== undefined) findings.open(keyPassword, 'cannot be given here: the file of the key must be plain');
  for (const option of ['versions', 'ciphers']) {
    const choice = settings.take(option);
    if (choice !== undefined) findings.open(choice, 'cannot be chosen here: TLS 1.2 and newer, its ciphers built in');
  }
  settings.drop(NOT_NEEDED, 'has no counterpart, and needs none');
  const verify = verificationOf(settings.take('verify'), findings);
  const serverName = settings.take('server_name_indication');
  settings.reportRest();
  return { verify, serverName, hasAuthorities: draft.has([...target, 'ca']) };
}

function verificationOf(verify: Setting | undefined, findings: Findings): Verification['verify'] {
  if (verify === undefined) return 'default';
  if (isAtom(verify.term, 'verify_peer')) return 'peer';
  if (!isAtom(verify.term, 'verify_none')) findings.open(verify, 'is neither verify_peer nor verify_none');
  return isAtom(verify.term, 'verify_none') ? 'none' : 'default';
}
