/** Formats the SBOM (bill of materials): CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/. */
import { DESCRIPTION, LICENSE, NAME, sha256, timestamp, VERSION } from '../project.ts';
import type { Component } from './inventory.ts';

/** The binary or image that an SBOM describes. */
export interface Subject {
  readonly type: 'application' | 'container';
  /** Package URL */
  readonly purl: string;
  /** Hexadecimal digits; undefined for an image, which contains its own SBOM */
  readonly sha256?: string | undefined;
  /** Seconds since 1970 */
  readonly epoch: number;
}

/** Formats an SBOM. The same subject and components give the same text. */
export function formatSbom(subject: Subject, components: readonly Component[]): string {
  const described = components.map((component) => describe(component));
  const content = JSON.stringify([subject, described]);
  return `${JSON.stringify(
    {
      bomFormat: 'CycloneDX',
      specVersion: '1.6',
      serialNumber: `urn:uuid:${uuidOf(content)}`,
      version: 1,
      metadata: {
        timestamp: timestamp(subject.epoch),
        component: {
          'bom-ref': subject.purl,
          type: subject.type,
          name: NAME,
          version: VERSION,
          description: DESCRIPTION,
          licenses: [{ license: { id: LICENSE } }],
          purl: subject.purl,
          ...(subject.sha256 === undefined ? {} : { hashes: [{ alg: 'SHA-256', content: subject.sha256 }] }),
        },
      },
      components: described,
      dependencies: [
        { ref: subject.purl, dependsOn: roots(components) },
        ...components.map(({ purl, needs }) => ({ ref: purl, dependsOn: needs })),
      ],
    },
    undefined,
    2,
  )}\n`;
}

function describe({ name, version, license, purl, url, integrity, parts }: Component, within = ''): object {
  return {
    'bom-ref': purl ?? `${within}/${name}`,
    type: 'library',
    name,
    ...(version === undefined ? {} : { version }),
    licenses: /^[\w.+-]+$/.test(license) ? [{ license: { id: license } }] : [{ expression: license }],
    ...(purl === undefined ? {} : { purl }),
    ...(integrity === undefined ? {} : { hashes: [hashOf(integrity)] }),
    ...(url === undefined ? {} : { externalReferences: [{ type: 'website', url }] }),
    ...(parts.length === 0 ? {} : { components: parts.map((part) => describe(part, purl)) }),
  };
}

function hashOf(integrity: string): object {
  const [algorithm, digest] = integrity.split(/-(.*)/s) as [string, string];
  return algorithm === 'sha512'
    ? { alg: 'SHA-512', content: Buffer.from(digest, 'base64').toString('hex') }
    : { alg: 'SHA-256', content: digest };
}

/** Components that no other component needs: direct dependencies of the subject. */
function roots(components: readonly Component[]): (string | undefined)[] {
  const needed = new Set(components.flatMap(({ needs }) => needs));
  return components.map(({ purl }) => purl).filter((purl) => purl !== undefined && !needed.has(purl));
}

/** Derives a UUID (version 8, RFC 9562) from a text. */
function uuidOf(content: string): string {
  const digits = [...sha256(content)];
  digits[12] = '8';
  digits[16] = '8';
  return digits
    .slice(0, 32)
    .join('')
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
