import { describe, expect, test } from 'bun:test';
import { lintExposition, parseExposition } from './exposition.ts';

const family = (name: string, type: string, ...samples: string[]) =>
  ['', `# HELP ${name} Help`, `# TYPE ${name} ${type}`, ...samples, ''].join('\n');

describe('parseExposition', () => {
  test('reads families, labels with escapes, and values', () => {
    const text = family('a_bytes', 'gauge', 'a_bytes{x="1",y="\\"\\\\\\n"} 1.5e+21', 'a_bytes -Inf');
    expect(parseExposition(text).get('a_bytes')).toEqual({
      name: 'a_bytes',
      type: 'gauge',
      help: 'Help',
      samples: [
        { name: 'a_bytes', labels: { x: '1', y: '"\\\n' }, value: 1.5e21 },
        { name: 'a_bytes', labels: {}, value: Number.NEGATIVE_INFINITY },
      ],
    });
  });

  test.each([
    ['a TYPE without HELP', '# TYPE a gauge\na 1\n'],
    ['a repeated family', family('a', 'gauge', 'a 1') + family('a', 'gauge', 'a{x="1"} 1')],
    ['an unknown type', family('a', 'number', 'a 1')],
    ['a sample of another name', family('a', 'gauge', 'b 1')],
    ['a sample before any family', 'a 1\n'],
    ['the lines of a histogram in a gauge', family('a', 'gauge', 'a_sum 1')],
    ['a repeated series', family('a', 'gauge', 'a{x="1"} 1', 'a{x="1"} 2')],
    ['a value that is not a number', family('a', 'gauge', 'a undefined')],
    ['a label without quotes', family('a', 'gauge', 'a{x=1} 1')],
    ['no line feed at the end', family('a', 'gauge', 'a 1').trimEnd()],
  ])('refuses %s', (_what, text) => {
    expect(() => parseExposition(text)).toThrow();
  });
});

describe('lintExposition', () => {
  const buckets = (...counts: number[]) => [
    `a_seconds_bucket{le="1"} ${counts[0]}`,
    `a_seconds_bucket{le="+Inf"} ${counts[1]}`,
  ];
  const cases: [string, string, string[]][] = [
    ['nothing', family('a_seconds_total', 'counter', 'a_seconds_total 1'), []],
    ['nothing', family('a_seconds', 'histogram', ...buckets(1, 2), 'a_seconds_sum 3', 'a_seconds_count 2'), []],
    ['a counter without _total', family('a', 'counter', 'a 1'), ['a counter ends in _total']],
    ['a gauge with _total', family('a_total', 'gauge', 'a_total 1'), ['only a counter ends in _total']],
    ['a gauge with _count', family('a_count', 'gauge', 'a_count 1'), ['a suffix of histograms']],
    ['upper case', family('aB', 'gauge', 'aB 1'), ['not in snake case']],
    ['milliseconds', family('a_ms', 'gauge', 'a_ms 1'), ['not a base unit']],
    ['a unit in front', family('bytes_of_a', 'gauge', 'bytes_of_a 1'), ['the unit comes last']],
    ['a type in the name', family('a_gauge', 'gauge', 'a_gauge 1'), ['a type in the name']],
    ['camel case in a label', family('a', 'gauge', 'a{xY="1"} 1'), ['a label not in snake case']],
    ['le in a gauge', family('a', 'gauge', 'a{le="1"} 1'), ['le is for histograms']],
    [
      'buckets that shrink, without +Inf, sum and count',
      family('a_seconds', 'histogram', 'a_seconds_bucket{le="1"} 2', 'a_seconds_bucket{le="0.5"} 1'),
      [
        'bounds out of order in {}',
        'buckets that do not add up in {}',
        'no bucket +Inf in {}',
        'no sum in {}',
        "a count that is not the last bucket's in {}",
      ],
    ],
  ];
  test.each(cases)('complains about %s', (_what, text, complaints) => {
    expect(lintExposition(parseExposition(text)).map((one) => one.replace(/^\S+: /, ''))).toEqual(complaints);
  });
});
