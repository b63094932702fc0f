// Ready-made answer parsers: how a message states the team's answer.
import { plainForms } from './metric.ts';
import type { AnswerParser } from './types.ts';

/**
 * The text of the last complete `<tag>…</tag>` of a message, trimmed; of nested pairs the inner one. An empty pair states no
 * answer, and what stands in quotation marks or in a quoted line (`> …`) is someone else's (`isQuoted` has the exceptions).
 * `tagged('A')` reads `so it is <A>Rome</A>` as `Rome`. Throws a RangeError for what cannot be the name of a tag.
 */
export function tagged(tag: string): AnswerParser {
  if (!/^[^<>\s]+$/.test(tag))
    throw new RangeError(`tagged(${JSON.stringify(tag)}): the name of a tag alone, such as A.`);
  const [open, close] = [`<${tag}>`, `</${tag}>`];
  const name = tag.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  const pairs = new RegExp(`<${name}>((?:(?!</?${name}>)[\\s\\S])*)</${name}>`, 'g');
  return {
    parse: (text) => {
      const stated = [...text.matchAll(pairs)].filter(
        (pair) => !isQuoted(text, pair.index, pair.index + pair[0].length),
      );
      const answer = stated.at(-1)?.[1] ?? '';
      return plainForms(answer).trim() === '' ? null : answer.trim();
    },
    example: (answer) => `${open}${answer}${close}`,
  };
}

/** Quotation marks: an opening one, and the closing one that belongs to it. */
const quotations = [
  /"[^"]*"/g,
  /“[^”]*”/g,
  /«[^»]*»/g,
  /„[^“”]*[“”]/g,
  /`[^`]*`/g,
  // An apostrophe inside a word, or at its end, opens nothing.
  /(?<![\p{L}\p{N}])'[^']*'(?![\p{L}\p{N}])/gu,
];

/**
 * Whether the part of a text from `start` to `end` is quoted: in a line that begins with >, or in quotation marks. Those around
 * a whole message, around a value in JSON, and behind a colon with nothing after them in their line, quote nobody.
 */
function isQuoted(text: string, start: number, end: number): boolean {
  const line = text.slice(text.lastIndexOf('\n', start - 1) + 1, start);
  if (/^\s*>/.test(line)) return true;
  // The marks of a block of code are no quotation.
  const bare = text.replace(/```\w*/g, (fence) => ' '.repeat(fence.length));
  return quotations.some((quotation) =>
    [...bare.matchAll(quotation)].some(({ index, 0: { length } }) => {
      if (index >= start || index + length < end) return false;
      const [before, after] = [bare.slice(0, index).trimEnd(), bare.slice(index + length)];
      const isValue = /["']\s*:$|[[{,(]$/.test(before);
      const isAll = before === '' && /^[\s.!]*$/.test(after);
      const isStatement = before.endsWith(':') && /^[ \t.!)\]]*(?:\n|$)/.test(after);
      return !(isValue || isAll || isStatement);
    }),
  );
}

/**
 * GSM8K's way to state a number (its dataset.py): what stands behind the first `#### `, of the characters - 0–9 . and comma.
 * `hashes()` reads `… so 12 in all. #### 12` as `12`.
 */
export function hashes(): AnswerParser {
  return {
    parse: (text) => /#### (-?[0-9.,]+)/.exec(plainForms(text))?.[1] ?? null,
    example: (answer) => `#### ${answer}`,
  };
}

/** What may stand around a letter alone: brackets, quotation marks, tags, Markdown, LaTeX. */
const wrapping = /<\/?\w+>|\\(?:boxed|text\w*|math\w+)|[\s()[\]{}"'`“”‘’*_$.:,!\\-]/g;

/** What takes a choice back, or leaves it open, before it in its clause. */
const denied =
  /\b(?:not|never|cannot|nobody|none|no(?![,.])|neither|nor|either|or|than|instead of|doubt|refuse|avoid|against|mistake|wrong|maybe|perhaps|might|could)\b|n['’]t\b/iu;
const conditional = /\b(?:if|unless|whether|suppos\w+|assum\w+)\b/iu;
const undecided = /\?|\b(?:not (?:so |quite |too |entirely )?(?:sure|certain)|unsure|uncertain)\b/iu;
/** Another option beside the one that is chosen, or in its place. */
const another = /^[)\]}"'”’*_]*,?\s*(?:or\b|(?:(?:and|nor)\b|[,/&])\s*\(?[A-Z]\b(?!\s+\p{Ll}))/u;
const sentenceEnd = /[.!?;](?=\s|$)|\n/gu;
/** Where a clause begins that may choose whatever stands before it in its sentence. */
const clauseStart = /:|,\s+(?=I\b|[Ii]t\b|[Ww]e\b)|\b(?:so|hence|thus|therefore|but)\b/giu;

/** Whether the sentence in which a text chooses, from `start` to `end`, means it: does not deny, ask or suppose it, and names no other. */
function isMeant(text: string, start: number, end: number): boolean {
  const ends = [...text.matchAll(sentenceEnd)].map(({ index, 0: mark }) => index + mark.length);
  // What chooses may begin with the mark that ends the sentence before it.
  const first = start + /^[\s.,;:!?]*/.exec(text.slice(start))![0].length;
  const said = text.slice(ends.findLast((at) => at <= first) ?? 0, end);
  const after = text.slice(
    end,
    ends.find((at) => at > end),
  );
  const clause = said.slice([...said.matchAll(clauseStart)].at(-1)?.index ?? 0);
  return !(
    denied.test(clause) ||
    conditional.test(said + after) ||
    undecided.test(after) ||
    another.test(after)
  );
}

/**
 * The letter of the option that a message states, A to `last`, in upper case. It counts behind "answer" (the last such
 * statement), else behind "option" or "choice", else alone in its message or its first line, else where it is chosen in a sentence
 * (`so B`, `I would pick B`, `B is correct`) and the sentence does not deny, ask or suppose it, nor name another beside it; else
 * before the text of its option (`C: guanine`), or behind a colon at the end. A capital that is a word, as in "A planet is …",
 * states nothing.
 */
export function option(last = 'Z'): AnswerParser {
  if (!/^[A-Z]$/.test(last)) throw new RangeError(`option("${last}"): the last option is a capital letter.`);
  // A letter in its wrapping that is no word: not "Basalt", not "D'Artagnan", not "A planet".
  const letter = `[\\s*_$"'“‘\`(\\[{\\\\]*(?:\\\\(?:boxed|text\\w*|math\\w+)\\{)*(?:<\\w+>)?\\(?([A-${last}])(?![\\p{L}\\p{N}]|['’]\\p{L}|\\s+(?!because|since|as|and|or|not|but)\\p{Ll})`;
  const behind = (words: string) =>
    new RegExp(
      `\\b(?:${words})\\b["']?(?:\\s+(?:is|would be|must be|should be))?(?:\\s+the letter)?\\s*[:=-]?${letter}`,
      'gu',
    );
  const [answers, options] = [behind('[Aa]nswer'), behind('[Oo]ption|[Cc]hoice')];
  const chosen = new RegExp(
    `\\b(?:[Ss]o|[Hh]ence|[Tt]hus|[Tt]herefore|[Cc]hoose|[Pp]ick|[Ss]elect|[Gg]o with|[Ii]t(?:['’]s| is| must be)),?${letter}|` +
      `(?:^|[\\n.,;:!?]\\s*|\\b[Ss]o )\\(?([A-${last}])\\)? (?:is|must be) (?:the )?(?:correct|right|best)\\b`,
    'gu',
  );
  const alone = new RegExp(`^[A-${last}]$`);
  const leading = new RegExp(`^[\\s*_"'([-]*([A-${last}])(?:\\s*[).:\\],*]|\\s+-|\\s*$)`, 'u');
  const trailing = new RegExp(`:${letter}[\\s).\\]}*_"']*$`, 'u');
  return {
    parse: (given) => {
      const text = plainForms(given);
      const statement = [...text.matchAll(answers)].at(-1) ?? [...text.matchAll(options)].at(-1);
      if (statement !== undefined) return statement[1]!;
      const [first = ''] = text.trim().split('\n');
      const bare = [text, first].map((part) => part.replace(wrapping, '')).find((part) => alone.test(part));
      if (bare !== undefined) return bare;
      const choice = [...text.matchAll(chosen)]
        .filter((match) => isMeant(text, match.index, match.index + match[0].length))
        .at(-1);
      return choice?.[1] ?? choice?.[2] ?? trailing.exec(text)?.[1] ?? leading.exec(text)?.[1] ?? null;
    },
    example: (answer) => `Answer: ${answer}`,
  };
}
