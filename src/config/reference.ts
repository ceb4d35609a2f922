/** The configuration reference as text for a terminal, for `--reference`. */
import { describeConfiguration } from './schema.ts';

const WIDTH = 80;
const INDENT = '    ';

/** Every key in the order of the schema: its path, then type, unit and default, then its meaning. */
export function referenceText(): string {
  const paragraphs = describeConfiguration().map(({ path, type, unit, default: byDefault, meaning }) => {
    const kind = unit === undefined ? type : `${type} in ${unit}`;
    return [path, ...wrap(`${kind}; ${describeDefault(byDefault)}`), ...wrap(meaning)].join('\n');
  });
  return `${paragraphs.join('\n\n')}\n`;
}

function describeDefault(text: string): string {
  if (text === 'required') return text;
  return text === 'none' ? 'optional' : `default: ${text}`;
}

/** Breaks a text between words and drops the backticks that a table in Markdown needs. */
function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.replaceAll('`', '').split(' ')) {
    if (line !== '' && INDENT.length + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.map((wrapped) => `${INDENT}${wrapped}`);
}
