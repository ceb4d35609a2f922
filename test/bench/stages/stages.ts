/**
 * Each stage of the record path by itself: `bun test/bench/stages/stages.ts [--json FILE]`, in ns of CPU time per row,
 * without any server.
 *
 * The stages are compiled like the service: what the compiled program cannot load, above all a native CRC-32C, is missing
 * here as well. The bytes are in the caches and nothing else runs, so the figures show the cost of the code and where it
 * could be reduced; what a row costs in the service, with sockets, library and collector, is shown by `make bench`.
 */
import { join } from 'node:path';
import { compile } from '../../../src/build/compile.ts';
import { guardProcess, releaseProcess } from '../../support/process/guardian.ts';
import { temporaryDirectory } from '../../support/process/temporary-directory.ts';

await using directory = await temporaryDirectory('stages');
const program = join(directory.path, 'stages');
await compile({ file: program, entry: 'test/bench/stages/stages-program.ts' });
const measurement = Bun.spawn([program, ...process.argv.slice(2)], { stdio: ['ignore', 'inherit', 'inherit'] });
guardProcess(measurement.pid, 'KILL');
process.exitCode = await measurement.exited;
releaseProcess(measurement.pid);
