// Ready-made answer parsers: how a message states the team's answer.
import type { AnswerParser } from './types.ts';

/**
 * The text of the last complete `<tag>…</tag>` of a message, trimmed; of nested pairs the inner one. An empty pair states no
 * answer, and a pair in quotation marks or in a quoted line (`> …`) is someone else's: it counts only as the whole message,
 * or as a value in JSON. `tagged('A')` reads `so it is <A>Rome</A>` as `Rome`.
 */
export function tagged(tag: string): AnswerParser {
  const [open, close] = [`<${tag}>`, `</${tag}>`];
  const name = tag.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  const pairs = new RegExp(`<${name}>((?:(?!</?${name}>)[\\s\\S])*)</${name}>`, 'g');
  return {
    parse: (text) => {
      const stated = [...text.matchAll(pairs)].filter(
        (pair) => !isQuoted(text, pair.index, pair.index + pair[0].length),
      );
      const answer = stated.at(-1)?.[1] ?? '';
      return answer.trim() || null;
    },
    example: (answer) => `${open}${answer}${close}`,
  };
}

const opening = '"\'`“‘«„';
const closing = '"\'`”’»“';

/** Whether the part of a text from `start` to `end` is quoted. */
function isQuoted(text: string, start: number, end: number): boolean {
  const before = text.slice(0, start).trimEnd();
  const line = before.slice(before.lastIndexOf('\n') + 1);
  if (/^\s*>/.test(line)) return true;
  const after = text.slice(end).replace(/^[\s.,;:!?]+/, '');
  if (before === '' || after === '' || !opening.includes(before.at(-1)!) || !closing.includes(after[0]!))
    return false;
  const outside = before.slice(0, -1).trimEnd();
  const isJson = /["']\s*:$|[[{,]$/.test(outside);
  return !(isJson || (outside === '' && after.length === 1));
}

/**
 * GSM8K's way to state a number (its dataset.py): what stands behind the first `#### `, of the characters - 0–9 . and comma.
 * `hashes()` reads `… so 12 in all. #### 12` as `12`.
 */
export function hashes(): AnswerParser {
  return {
    parse: (text) => /#### (-?[0-9.,]+)/.exec(text)?.[1] ?? null,
    example: (answer) => `#### ${answer}`,
  };
}

/** What may stand around a letter alone: brackets, quotation marks, tags, Markdown, LaTeX. */
const wrapping = /<\/?\w+>|\\(?:boxed|text|mathrm|mathbf)|[\s()[\]{}"'`“”‘’*_$.:,!\\]/g;

/**
 * The letter of the option that a message states, A to `last`, in upper case. It counts behind "answer" or "option" (the last
 * such statement), else alone in its message, before the text of its option (`C: guanine`), or behind a colon at the end.
 * A capital that is a word, as in "A planet is …", states nothing.
 */
export function option(last = 'Z'): AnswerParser {
  const letter = `[A-${last}]`;
  const bare = `[\\s*_$"'(\\[{]*(?:\\\\(?:boxed|text)\\{)*\\(?(${letter})(?![\\p{L}\\p{N}'’])`;
  const named = new RegExp(
    `\\b(?:[Aa]nswer|[Oo]ption|[Cc]hoice)(?:\\s+(?:is|are|would be|must be))?\\s*:?${bare}`,
    'gu',
  );
  const leading = new RegExp(`^[\\s*_"'(\\[]*(${letter})(?:\\s*[).:\\]]|\\s*$)`, 'u');
  const trailing = new RegExp(`:${bare}[\\s).\\]}*_"']*$`, 'u');
  return {
    parse: (text) => {
      const statement = [...text.matchAll(named)].at(-1);
      if (statement !== undefined) return statement[1]!;
      const alone = text.replace(wrapping, '');
      if (new RegExp(`^${letter}$`).test(alone)) return alone;
      return (leading.exec(text) ?? trailing.exec(text))?.[1] ?? null;
    },
    example: (answer) => `Answer: ${answer}`,
  };
}
