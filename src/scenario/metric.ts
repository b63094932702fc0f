// Ready-made metrics. Each compares answers in a normal form of its own, and says whose rule that is.
import type { Metric, Score } from './types.ts';

/** What a metric says of an answer. Throws what it throws, and for a promise, which the judge would not wait for. */
export function scoreAnswer(metric: Metric, prediction: string | null, answers: readonly string[]): Score {
  const score: Score & Partial<PromiseLike<unknown>> = metric.score(prediction, answers);
  if (typeof score?.then !== 'function') return score;
  // What becomes of it is nobody's business any more.
  score.then(undefined, () => {});
  throw new TypeError('it gives a promise, and a metric gives its score at once');
}

/** NFC, full-width forms as their ASCII counterparts, lower case: what every normal form begins with. */
const folded = (text: string): string =>
  text
    .normalize('NFC')
    .replace(/[\uff01-\uff5e]/g, (wide) => String.fromCharCode(wide.charCodeAt(0) - 0xfee0))
    .toLowerCase();

/** Marks that belong to what they stand at; the groups before and after are what they must stand at. */
const meaningful = [
  /(?<![\p{L}\p{N})\]])-(?=[\p{L}\p{N}\p{Sc}√∞(.\\])/u, // a sign
  /(?<=(?<!\p{L})\p{L}{1,2})-(?![\p{L}\p{N}])/u, // A-, OH-
  /(?<=\p{N})[-.:,](?=\p{N})/u, // 10-3, 1.5, 10:30, and a comma that separates no thousands
  /(?<![\p{L}\p{N}])\.(?=\p{N})/u, // .5
  /(?<=\p{N}e)[-+](?=\p{N})/u, // 1e-5
  /(?<=\p{N})\s*[%‰]/u, // 50 %
  /(?<=[\p{L}\p{N}+])\+|(?<=[\p{L}\p{N}])#/u, // C++, C#
  /(?<=[\p{L}\p{N})])[*/^_](?=[\p{L}\p{N}(])/u, // 2*3, 3/4, x^2, x_1
  /(?!\+)\p{Sm}/u,
]
  .map(({ source }) => source)
  .join('|');
const marks = new RegExp(`(${meaningful})|[\\p{P}\\p{S}]`, 'gu');

/**
 * The normal form in which two answers are the same: by `exactMatch`, and for a team that agrees. Lower case, NFC, single
 * spaces, and without the marks of prose and the articles a, an, the before a word, as in SQuAD (Rajpurkar et al., 2016); but
 * signs, decimal points, exponents, percent signs and operators stay: -3 is not 3, 1.5 not 15, 50 % not 50, C# not C++. It
 * knows no mathematics: 3.0 is not 3, and x² not x^2.
 * Thousands separators go: 1,000 is 1000. An article or a mark alone is an answer, and stays.
 */
export function normalizeAnswer(text: string): string {
  const spaced = (words: string) => words.replace(/\s+/g, ' ').trim();
  const whole = spaced(folded(text).replace(/[\u2010-\u2015\u2212]/g, '-'));
  const numbers = whole.replace(/(?<![\p{N},.])\p{N}{1,3}(?:,\p{N}{3})+(?![\p{N},])/gu, (number) =>
    number.replaceAll(',', ''),
  );
  const tight = numbers
    .replace(/([\^_])\{([^{}]*)\}/g, '$1$2')
    .replace(/(?<=\p{N})\s*([-+*/^×÷])\s*(?=[-.(]?\p{N})/gu, '$1')
    .replace(/\s*([=<>≤≥≠])\s*/g, '$1');
  const words = spaced(tight.replace(marks, (_, kept?: string) => kept?.trim() ?? ''));
  return spaced(words.replace(/(?<![\p{L}\p{N}\p{M}_])(?:an?|the) (?=\S)/gu, '')) || words || whole;
}

/** HotpotQA's normal form (hotpot_evaluate_v1.py), which is SQuAD's: without ASCII punctuation and any a, an, the. */
const normalizeHotpot = (text: string): string =>
  folded(text)
    .replace(/[!-/:-@[-`{-~]/g, '')
    .replace(/(?<![\p{L}\p{N}_])(?:an?|the)(?![\p{L}\p{N}_])/gu, ' ')
    .replace(/\s+/g, ' ')
    .trim();

/** Words; where a script writes no spaces between them (Chinese, Japanese), characters. */
const wordsOf = (normal: string): readonly string[] =>
  normal.match(
    /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}]|[^\s\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}]+/gu,
  ) ?? [];

/** Answers that match themselves alone. */
const closed = ['yes', 'no', 'noanswer'];

/**
 * Word-overlap F1 of two answers, in [0, 1], as HotpotQA computes it: yes, no and noanswer match only themselves, and an
 * answer of which the normal form is empty matches nothing. Chinese and Japanese overlap by character.
 */
export function answerF1(prediction: string, truth: string): number {
  const [said, right] = [normalizeHotpot(prediction), normalizeHotpot(truth)];
  if (said !== right && (closed.includes(said) || closed.includes(right))) return 0;
  const [predicted, expected] = [wordsOf(said), wordsOf(right)];
  const remaining = new Map<string, number>();
  for (const word of expected) remaining.set(word, (remaining.get(word) ?? 0) + 1);
  let shared = 0;
  for (const word of predicted) {
    const left = remaining.get(word) ?? 0;
    if (left === 0) continue;
    remaining.set(word, left - 1);
    shared++;
  }
  return shared === 0 ? 0 : (2 * shared) / (predicted.length + expected.length);
}

/**
 * F1 against the best of the accepted answers; no answer scores 0. An exact match is HotpotQA's, but for answers whose normal
 * forms are both empty, which match there.
 */
export const f1: Metric = {
  name: 'f1',
  score: (prediction, answers) =>
    prediction === null
      ? { score: 0, exactMatch: false }
      : {
          score: Math.max(...answers.map((answer) => answerF1(prediction, answer))),
          exactMatch: isAmong(prediction, answers, normalizeHotpot),
        },
};

/** 1 when the answer equals one of the accepted answers in normal form (`normalizeAnswer`), else 0. */
export const exactMatch: Metric = scoredBy('exact-match', normalizeAnswer);

/**
 * 1 when the answer is one of the accepted numbers as GSM8K compares them (its dataset.py): commas go, and the rest is compared
 * as it is written, so that 3.0 is not 3. Goes with the parser `hashes()`.
 */
export const exactNumber: Metric = scoredBy('exact-number', (text) => text.trim().replaceAll(',', ''));

/** 1 when the answer is the letter of one of the accepted options, else 0. Goes with the parser `option()`. */
export const exactOption: Metric = scoredBy('exact-option', (text) => folded(text.trim()));

function scoredBy(name: string, normalize: (text: string) => string): Metric {
  return {
    name,
    score: (prediction, answers) => {
      const hit = prediction !== null && isAmong(prediction, answers, normalize);
      return { score: hit ? 1 : 0, exactMatch: hit };
    },
  };
}

function isAmong(
  prediction: string,
  answers: readonly string[],
  normalize: (text: string) => string,
): boolean {
  const normal = normalize(prediction);
  return normal !== '' && answers.some((answer) => normalize(answer) === normal);
}
