/** Which stage of the record path a call stack works for. */
import type { Frame } from './profile-samples.ts';

/** A stage, and which functions belong to it: by file, or by name what is not written in JavaScript. */
interface Stage {
  readonly name: string;
  readonly files?: RegExp;
  readonly natives?: RegExp;
}

/** What fits none of the stages. */
const OTHER = 'other';

/** In the order in which they are tried: the first that fits has it. */
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
 * The stage of a stack: that of the innermost function which belongs to one, else `other`. So what several use, such as `subarray` or
 * src/bytes/, counts for whoever called it.
 */
export function stageOf(frames: readonly Frame[]): string {
  for (const { label, url } of frames.toReversed()) {
    const stage = STAGES.find(({ files, natives }) => (url === '' ? natives?.test(label) : files?.test(url)));
    if (stage !== undefined) return stage.name;
  }
  return OTHER;
}
