/**
 * Each stage of the record path by itself: `bun test/bench/stages/stages.ts [--json FILE]`, in ns of processor time a row,
 * without any server.
 *
 * The stages are compiled as the service is: what the compiled program cannot load, above all a native CRC-32C, it does
 * not have here either. The bytes are in the caches and nothing else is done, so the figures tell what the code costs and
 * where a gain may lie; what a row costs in the service, with sockets, library and collector, is told by `make bench`.
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
