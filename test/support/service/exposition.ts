/**
 * Reads the Prometheus text format and checks it, as `promtool check metrics` would.
 * Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
 * Rules: https://prometheus.io/docs/practices/naming/ and promlint of client_golang.
 */

/** All series of one name. */
export interface ParsedFamily {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: readonly ParsedSample[];
}

/** One line; its name has the suffix that a histogram's lines have. */
export interface ParsedSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"/g;
const NUMBER = /^(?:[+-]?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|NaN)$/;
const UNITS_THAT_ARE_NOT_BASE =
  /(?:^|_)(?:ms|milliseconds|microseconds|micros|us|ns|minutes|hours|days|kb|kilobytes|mb|megabytes|percent)(?:_|$)/;

/**
 * Parses a whole exposition into families by name.
 * @throws Error with the line that is malformed, belongs to no family or repeats a series
 */
export function parseExposition(text: string): Map<string, ParsedFamily> {
  const families = new Map<string, ParsedFamily & { readonly samples: ParsedSample[] }>();
  const seen = new Set<string>();
  if (!text.endsWith('\n')) throw new Error('The text does not end with a line feed');
  let family: (ParsedFamily & { readonly samples: ParsedSample[] }) | undefined;
  let help: { readonly name: string; readonly text: string } | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const [, keyword, name, rest] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (keyword === 'HELP') {
      help = { name: name!, text: rest! };
    } else if (keyword === 'TYPE') {
      if (help?.name !== name) throw new Error(`No HELP before: ${line}`);
      if (families.has(name!)) throw new Error(`A second time: ${line}`);
      if (!/^(counter|gauge|histogram)$/.test(rest!)) throw new Error(`Unknown type: ${line}`);
      family = { name: name!, type: rest!, help: help!.text, samples: [] };
      families.set(name!, family);
    } else {
      const sample = parseSample(line);
      if (!belongsTo(sample, family)) throw new Error(`Not of the family before it: ${line}`);
      const series = line.slice(0, line.lastIndexOf(' '));
      if (seen.has(series)) throw new Error(`A second time: ${line}`);
      seen.add(series);
      family!.samples.push(sample);
    }
  }
  return families;
}

function parseSample(line: string): ParsedSample {
  const [, name, labels = '', value] = SAMPLE.exec(line) ?? [];
  if (name === undefined || !NUMBER.test(value!)) throw new Error(`No sample: ${line}`);
  const pairs = Array.from(labels.matchAll(LABEL), ([, label, text]): [string, string] => [
    label!,
    text!.replace(/\\(.)/g, (_escape, letter: string) => (letter === 'n' ? '\n' : letter)),
  ]);
  return { name, labels: Object.fromEntries(pairs), value: Number(value!.replace('Inf', 'Infinity')) };
}

function belongsTo({ name }: ParsedSample, family: ParsedFamily | undefined): boolean {
  if (family === undefined) return false;
  if (family.type !== 'histogram') return name === family.name;
  return ['_bucket', '_sum', '_count'].some((suffix) => name === family.name + suffix);
}

/** What promtool would complain about, one text each; empty without complaints. */
export function lintExposition(families: ReadonlyMap<string, ParsedFamily>): string[] {
  return [...families.values()].flatMap((family) => [...lintFamily(family)].map((text) => `${family.name}: ${text}`));
}

function* lintFamily({ name, type, help, samples }: ParsedFamily): Iterable<string> {
  if (help.trim() === '') yield 'no help';
  if (!/^[a-z][a-z0-9_]*$/.test(name)) yield 'not in snake case';
  if (type === 'counter' && !name.endsWith('_total')) yield 'a counter ends in _total';
  if (type !== 'counter' && name.endsWith('_total')) yield 'only a counter ends in _total';
  if (/_(?:bucket|sum|count)$/.test(name)) yield 'a suffix of histograms';
  if (/(?:^|_)(?:counter|gauge|histogram)(?:_|$)/.test(name)) yield 'a type in the name';
  if (UNITS_THAT_ARE_NOT_BASE.test(name)) yield 'not a base unit';
  if (/(?:seconds|bytes)/.test(name) && !/_(?:seconds|bytes)(?:_total)?$/.test(name)) yield 'the unit comes last';
  for (const { labels } of samples) {
    if (Object.keys(labels).some((label) => !/^[a-z][a-z0-9_]*$/.test(label))) yield 'a label not in snake case';
    if (type !== 'histogram' && 'le' in labels) yield 'le is for histograms';
  }
  if (type === 'histogram') yield* lintHistogram(samples);
}

function* lintHistogram(samples: readonly ParsedSample[]): Iterable<string> {
  const seriesOf = ({ labels: { le: _, ...labels } }: ParsedSample) => JSON.stringify(labels);
  for (const [series, of] of Map.groupBy(samples, seriesOf)) {
    const end = (suffix: string) => of.filter(({ name }) => name.endsWith(suffix));
    const buckets = end('_bucket');
    const bounds = buckets.map(({ labels }) => Number(labels.le!.replace('+Inf', 'Infinity')));
    const counts = buckets.map(({ value }) => value);
    if (!isAscending(bounds)) yield `bounds out of order in ${series}`;
    if (!isAscending(counts)) yield `buckets that do not add up in ${series}`;
    if (bounds.at(-1) !== Number.POSITIVE_INFINITY) yield `no bucket +Inf in ${series}`;
    if (end('_sum').length !== 1) yield `no sum in ${series}`;
    if (end('_count')[0]?.value !== counts.at(-1)) yield `a count that is not the last bucket's in ${series}`;
  }
}

function isAscending(numbers: readonly number[]): boolean {
  return numbers.every((number, index) => index === 0 || number >= numbers[index - 1]!);
}
