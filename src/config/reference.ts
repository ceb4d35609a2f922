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

/** Without the backticks and links of a table in Markdown, whose links start from config/. */
function plain(markdown: string): string {
  return markdown.replaceAll('`', '').replaceAll(/\[([^\]]+)\]\(([^)#]+)[^)]*\)/g, '"$1" in config/$2');
}

/** Breaks a text between words. */
function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of plain(text).split(' ')) {
    if (line !== '' && INDENT.length + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.map((wrapped) => `${INDENT}${wrapped}`);
}
