/** Options of Erlang's `ssl`, as epgsql and brod pass them on. Source: OTP, `ssl:tls_client_option()`. */

import type { ImportPlace } from './carry-over.ts';
import type { ImportReport } from './import-report.ts';
import { Settings } from './settings.ts';
import { isAtom, type Setting } from './term.ts';
import { plainText } from './values.ts';

/** How the options verify the server's certificate. */
export interface Verification {
  /** `default` = not set: before OTP 26 nothing is verified then */
  readonly verify: 'peer' | 'none' | 'default';
  /** A name, or the atom `disable` */
  readonly serverName: Setting | undefined;
  readonly hasAuthorities: boolean;
}

/** The verification without any options. */
export const NO_OPTIONS: Verification = { verify: 'default', serverName: undefined, hasAuthorities: false };

/** PEM files: key of the new file by option. */
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

/** Writes the files named in the options into the mapping at `target`; the caller decides on the verification returned. */
export function importTlsOptions(options: Setting, { target, draft, report }: ImportPlace): Verification {
  const settings = Settings.read(options, report);
  if (settings === undefined) return NO_OPTIONS;
  for (const [option, key] of Object.entries(PEM_FILES)) {
    const file = settings.take(option);
    const path = file === undefined ? undefined : plainText(file, report, [...target, key]);
    if (file === undefined || path === undefined) continue;
    if (!path.startsWith('/')) {
      report.addQuestion(file, 'is a relative path, now relative to the directory of the configuration file');
    }
    draft.set([...target, key], path, { origin: file });
  }
  const keyPassword = settings.take('password');
  if (keyPassword !== undefined)
    report.addQuestion(keyPassword, 'is not supported: the key file must not be encrypted');
  for (const option of ['versions', 'ciphers']) {
    const choice = settings.take(option);
    if (choice !== undefined)
      report.addQuestion(choice, 'cannot be set: TLS 1.2 and newer are used, with built-in ciphers');
  }
  settings.drop(NOT_NEEDED, 'has no counterpart and needs none');
  const verify = verificationOf(settings.take('verify'), report);
  const serverName = settings.take('server_name_indication');
  settings.reportRest();
  return { verify, serverName, hasAuthorities: draft.has([...target, 'ca']) };
}

function verificationOf(verify: Setting | undefined, report: ImportReport): Verification['verify'] {
  if (verify === undefined) return 'default';
  if (isAtom(verify.term, 'verify_peer')) return 'peer';
  if (!isAtom(verify.term, 'verify_none')) report.addQuestion(verify, 'is neither verify_peer nor verify_none');
  return isAtom(verify.term, 'verify_none') ? 'none' : 'default';
}
