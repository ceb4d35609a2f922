/** An OCI image layout (https://github.com/opencontainers/image-spec, image-layout.md) in a directory. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256 } from '../project.ts';

/** A reference to a blob (descriptor.md). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/** How to run the image (config.md), without the parts computed from the layers. */
export interface ImageConfiguration {
  readonly architecture: string;
  readonly os: 'linux';
  /** RFC 3339 */
  readonly created: string;
  readonly config: object;
}

/** One layer of the file system. */
export interface Layer {
  /** Uncompressed */
  readonly tar: Uint8Array;
  /** Its contents, for the history of the image */
  readonly comment: string;
}

const MEDIA = 'application/vnd.oci.image';

/** Writes an image of several architectures. */
export class OciLayout {
  readonly #directory: string;
  readonly #manifests: object[] = [];

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Creates an empty layout in a new directory. */
  static async create(directory: string): Promise<OciLayout> {
    await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
    await writeFile(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    return new OciLayout(directory);
  }

  /** Adds the image of one architecture; returns how many bytes a registry sends for it. */
  async add(image: ImageConfiguration, layers: readonly Layer[]): Promise<number> {
    const compressed = await Promise.all(
      layers.map(({ tar }) =>
        this.#write(
          'layer.v1.tar+gzip',
          // As small as level 9 of zlib, in less than half the time.
          Bun.gzipSync(tar as Uint8Array<ArrayBuffer>, { library: 'libdeflate', level: 6 }),
        ),
      ),
    );
    const { architecture, os, created } = image;
    const config = await this.#writeJson('config.v1+json', {
      ...image,
      rootfs: { type: 'layers', diff_ids: layers.map(({ tar }) => `sha256:${sha256(tar)}`) },
      history: layers.map(({ comment }) => ({ created, created_by: 'src/build/image/image.ts', comment })),
    });
    const manifest = await this.#writeJson('manifest.v1+json', {
      schemaVersion: 2,
      mediaType: `${MEDIA}.manifest.v1+json`,
      config,
      layers: compressed,
    });
    this.#manifests.push({ ...manifest, platform: { architecture, os } });
    return [manifest, config, ...compressed].reduce((sum, { size }) => sum + size, 0);
  }

  /** Writes the index of all architectures, with the name that `docker load` and `podman load` give to the image. */
  async finish(name: string, tag: string, annotations: Readonly<Record<string, string>>): Promise<void> {
    const manifests = this.#manifests;
    const mediaType = `${MEDIA}.index.v1+json`;
    const index = await this.#writeJson('index.v1+json', { schemaVersion: 2, mediaType, manifests, annotations });
    const names = {
      'org.opencontainers.image.ref.name': tag,
      // The full form of NAME:TAG; without it engines would use the tag as the name.
      'io.containerd.image.name': `localhost/${name}:${tag}`,
    };
    const named = { ...index, annotations: names };
    await writeFile(
      join(this.#directory, 'index.json'),
      JSON.stringify({ schemaVersion: 2, mediaType, manifests: [named] }),
    );
  }

  #writeJson(type: string, value: object): Promise<Descriptor> {
    return this.#write(type, Buffer.from(JSON.stringify(value)));
  }

  async #write(type: string, content: Uint8Array): Promise<Descriptor> {
    const digest = sha256(content);
    await writeFile(join(this.#directory, 'blobs/sha256', digest), content);
    return { mediaType: `${MEDIA}.${type}`, digest: `sha256:${digest}`, size: content.length };
  }
}
