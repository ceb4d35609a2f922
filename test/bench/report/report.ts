/** The figures as text and as JSON. */
import type { Machine } from '../environment.ts';
import type { Section } from './section.ts';
import { table } from './text-table.ts';

/** All results. */
export interface Report {
  /** Start of the run, ISO 8601 */
  readonly startedAt: string;
  readonly seconds: number;
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  readonly settings: Readonly<Record<string, string>>;
  readonly commands: Readonly<Record<string, string>>;
  readonly sections: readonly Section[];
}

/** Above this load average other programs were running. */
const QUIET_LOAD_AVERAGE = 0.5;

/** The report as plain data. */
export function reportJson({ sections, ...rest }: Report): unknown {
  return {
    ...rest,
    targets: sections.flatMap(({ verdicts }) => verdicts),
    ...Object.fromEntries(sections.map(({ name, figures }) => [name, figures])),
  };
}

/** The report as text: machine, measurements, requirements. */
export function reportText(report: Report): string {
  const { machine, versions, settings, commands, sections, startedAt, seconds } = report;
  const verdicts = sections.flatMap((section) => section.verdicts);
  const noise = machine.loadAverage > QUIET_LOAD_AVERAGE ? ' (others were at work: the figures are noisy)' : '';
  const lines = [
    ...sections.flatMap((section) => [...section.lines, '']),
    ...table([
      ['target', 'wanted', 'reached', ''],
      ...verdicts.map(({ what, wanted, reached, met }) => [what, wanted, reached, met ? 'met' : 'below target']),
    ]),
    '',
    `Machine: ${machine.cpu}, ${coresOf(machine)}, ${gigabytes(machine.memoryBytes)}, Linux ${machine.kernel}`,
    `Load average before the run: ${machine.loadAverage}${noise}`,
    `Run: ${startedAt}, ${seconds.toFixed(0)} s`,
    `Versions: ${pairs(versions)}`,
    `Settings: ${pairs(settings)}`,
    ...Object.entries(commands).map(([name, command]) => `${name}: ${command}`),
  ];
  return `${lines.join('\n')}\n`;
}

function coresOf({ coreCount, usableCoreCount }: Machine): string {
  return usableCoreCount === coreCount ? `${coreCount} cores` : `${usableCoreCount} of ${coreCount} cores`;
}

function pairs(values: Readonly<Record<string, string>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(0)} GiB`;
}
