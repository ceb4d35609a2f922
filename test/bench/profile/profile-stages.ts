/** Assigns call stacks to stages of the record path. */
import type { Frame } from './profile-samples.ts';

/** A stage and its functions: by file, native ones by name. */
interface Stage {
  readonly name: string;
  readonly files?: RegExp;
  readonly natives?: RegExp;
}

/** The stage of all other stacks. */
const OTHER = 'other';

/** In the order of matching: the first match counts. */
const STAGES: readonly Stage[] = [
  { name: 'system calls', natives: /^(writeBuffered|write|writev|send|recv|read|shutdown|pauseSocket|resumeSocket)$/ },
  { name: 'garbage collection', natives: /^gc$/ },
  { name: 'CRC', natives: /^crc32c/i, files: /\/crc32c\.js$/ },
  { name: 'partition', files: /\/src\/kafka\/produce\/partitioner\.ts$/ },
  { name: 'batch', files: /\/src\/kafka\/produce\/(record-batch|batch-buffers)\.ts$/ },
  { name: 'convert', files: /\/src\/conversion\// },
  { name: 'decode', files: /\/src\/postgres\// },
  { name: 'produce, library', files: /\/src\/kafka\/|\/node_modules\/@platformatic\// },
  { name: 'flow, accounting', files: /\/src\/(flow|slot|status)\// },
  { name: 'driver, streams', files: /\/node_modules\/postgres\/|^node:(net|events|stream)|^internal:streams/ },
];

/** The stages by name. */
export const STAGE_NAMES: readonly string[] = STAGES.map(({ name }) => name);

/**
 * The stage of the innermost function that belongs to one, else `other`. Shared code, such as `subarray` or src/bytes/, counts for
 * its caller.
 */
export function stageOf(frames: readonly Frame[]): string {
  for (const { label, url } of frames.toReversed()) {
    const stage = STAGES.find(({ files, natives }) => (url === '' ? natives?.test(label) : files?.test(url)));
    if (stage !== undefined) return stage.name;
  }
  return OTHER;
}
