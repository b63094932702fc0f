// Ready-made metrics. Each compares answers in a normal form of its own, and says whose rule that is.

/** A metric that goes by the team's answer alone, and gives its score at once. */
export interface AnswerMetric {
  readonly name: string;
  score(
    prediction: string | null,
    answers: readonly string[],
  ): { readonly score: number; readonly exactMatch: boolean };
}

/**
 * NFC, with letters, digits and marks that are others in another shape (full-width, subscript, mathematical, ligatures) as NFKC has
 * them, and without characters that nobody sees. Superscripts stay: x² is not x2.
 */
export const plainForms = (text: string): string =>
  text
    .normalize('NFC')
    .replace(/[\uff01-\uff5e\ufb00-\ufb06\u2080-\u2089\u{1d400}-\u{1d7ff}]+/gu, (shaped) =>
      shaped.normalize('NFKC'),
    )
    .replace(/[\u00ad\u200b\u200e\u200f\u2060\ufeff]/g, '');

/** What every normal form begins with. */
const folded = (text: string): string => plainForms(text).toLowerCase();

/** Hyphens and dashes of every length, and the minus sign, as the one on keyboards. */
const plainDashes = (text: string): string => text.replace(/[\u2010-\u2015\u2212]/g, '-');

/** Marks that belong to what they stand at; the groups before and after are what they must stand at. */
const meaningful = [
  /(?<![\p{L}\p{N})\]])-(?=[\p{L}\p{N}\p{Sc}√∞(.\\])(?!0+(?:\.0+)?(?!\.?[\p{L}\p{N}]))/u, // a sign, but of zero
  /(?<=(?<!\p{L})\p{L}{1,2})-(?![\p{L}\p{N}])/u, // A-, OH-
  /(?<=\p{N})[-.:](?=\p{N})/u, // 10-3, 1.5, 10:30
  /(?<![\p{L}\p{N}])\.(?=\p{N})/u, // .5
  /(?<=\p{N}e)[-+](?=\p{N})/u, // 1e-5
  /(?<=\p{N})\s*[%‰]/u, // 50 %
  /(?<=[\p{L}\p{N}+])\+|(?<=[\p{L}\p{N}])#/u, // C++, C#
  /(?<=[\p{L}\p{N})])[*/^_](?=[-+.]?[\p{L}\p{N}(])/u, // 2*3, 3/4, x^2, 10^-3, x_1
  /(?!\+)\p{Sm}/u,
]
  .map(({ source }) => source)
  .join('|');
const marks = new RegExp(`(${meaningful})|[\\p{P}\\p{S}]`, 'gu');

/**
 * The normal form in which two answers are the same: by `exactMatch`, and for a team that agrees. Lower case, NFC, single
 * spaces, and without the marks of prose and the articles a, an, the before a word, as in SQuAD (Rajpurkar et al., 2016); but
 * signs, decimal points, exponents, percent signs and operators stay: -3 is not 3, 1.5 not 15, 50 % not 50, C# not C++. It
 * knows no mathematics: 3.0 is not 3, and x² not x^2; but -0 is 0.
 * A number with one word after it, and nothing more, is written as one: 5 km is 5km. Thousands separators go: 1,000 is 1000; other
 * commas between digits are those of a list. An article or a mark alone is an answer, and stays.
 */
export function normalizeAnswer(text: string): string {
  const spaced = (words: string) => words.replace(/\s+/g, ' ').trim();
  const whole = spaced(plainDashes(folded(text)));
  const numbers = whole.replace(/(?<![\p{N},.])\p{N}{1,3}(?:,\p{N}{3})+(?![\p{N},])/gu, (number) =>
    number.replaceAll(',', ''),
  );
  const tight = numbers
    .replace(/(?<=\p{N}),(?=\p{N})/gu, ' ')
    .replace(/([\^_])\{([^{}]*)\}/g, '$1$2')
    .replace(/(?<=\p{N})\s*([-+*/^×÷])\s*(?=[-.(]?\p{N})/gu, '$1')
    .replace(/\s*([=<>≤≥≠])\s*/g, '$1');
  const words = spaced(tight.replace(marks, (_, kept?: string) => kept?.trim() ?? ''));
  const united = words.replace(/^((?:(?:an?|the) )?[^\p{L}\s]*\p{N}(?:e[-+]?\p{N}+)?) (?=\p{L}\S*$)/u, '$1');
  const bare = spaced(united.replace(/(?<![\p{L}\p{N}\p{M}_])(?:an?|the) (?=\S)/gu, ''));
  return bare || words || whole;
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
 * F1 against the best of the accepted answers; no answer scores 0. It counts words and is blind to their order: "b, a" is as good
 * as "a, b" (`kendallTau` is not). An exact match is HotpotQA's, but for answers whose normal forms are both empty, which match
 * there.
 */
export const f1: AnswerMetric = {
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
export const exactMatch: AnswerMetric = scoredBy('exact-match', normalizeAnswer);

/**
 * 1 when the answer is one of the accepted numbers as GSM8K compares them (its dataset.py): commas go, and the rest is compared
 * as it is written, so that 3.0 is not 3. Goes with the parser `hashes()`.
 */
export const exactNumber: AnswerMetric = scoredBy('exact-number', (text) =>
  plainDashes(folded(text)).trim().replaceAll(',', ''),
);

/** 1 when the answer is the letter of one of the accepted options, else 0. Goes with the parser `option()`. */
export const exactOption: AnswerMetric = scoredBy('exact-option', (text) => folded(text.trim()));

function scoredBy(name: string, normalize: (text: string) => string): AnswerMetric {
  return hitOrMiss(name, (prediction, answers) => isAmong(prediction, answers, normalize));
}

function hitOrMiss(
  name: string,
  isHit: (prediction: string, answers: readonly string[]) => boolean,
): AnswerMetric {
  return {
    name,
    score: (prediction, answers) => {
      const hit = prediction !== null && isHit(prediction, answers);
      return { score: hit ? 1 : 0, exactMatch: hit };
    },
  };
}

/** A number and nothing else: sign, thousands separators, decimals, exponent; or a fraction of whole numbers; percent. */
const number =
  /^([-+]?(?=\.?\d)(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d+)?)(?:(?<=^[-+]?[\d,]+)\s*\/\s*(\d+))?\s*([%‰]?)$/;

/** The value of a text that is one number, with or without the sign of a currency: 50 % as 0.5, 3/4 as 0.75; null of any other. */
function numberIn(text: string): number | null {
  const whole = plainDashes(folded(text)).trim();
  const plain = whole.replace(/^([-+]?)\s*\p{Sc}\s*|\s*\p{Sc}$/u, '$1');
  const [, over = '', under = '1', share] = number.exec(plain) ?? [];
  // A share of what?
  if (share !== '' && plain !== whole) return null;
  const value =
    Number(over.replaceAll(',', '')) / Number(under) / (share === '%' ? 100 : share === '‰' ? 1000 : 1);
  return over !== '' && Number.isFinite(value) ? value : null;
}

/**
 * 1 when the answer is a number close to one of the accepted ones, else 0: |p − a| ≤ max(relative · |a|, absolute), as Python's
 * `math.isclose` but relative to the accepted number a. Without a tolerance 1e-9 relative, so that 3.0 is 3. A number is written
 * alone (`-1,000.5`, `2e3`, `3/4`, `$5`, `50 %`, which is 0.5), without a unit in words; throws for an accepted answer that is none, and a RangeError for a tolerance
 * below 0.
 */
export function closeTo(
  tolerance: { readonly relative?: number; readonly absolute?: number } = {},
): AnswerMetric {
  const { absolute = 0, relative = tolerance.absolute === undefined ? 1e-9 : 0 } = tolerance;
  if (!(relative >= 0 && absolute >= 0)) {
    throw new RangeError(
      `closeTo({ relative: ${relative}, absolute: ${absolute} }): a tolerance is at least 0.`,
    );
  }
  return hitOrMiss('close-to', (prediction, answers) => {
    const said = numberIn(prediction);
    return answers.some((answer) => {
      const right = numberIn(answer);
      if (right === null) throw new TypeError(`the accepted answer ${JSON.stringify(answer)} is no number`);
      return said !== null && Math.abs(said - right) <= Math.max(relative * Math.abs(right), absolute);
    });
  });
}

/** Where one item of a list ends and the next begins; a comma between digits groups them. */
const betweenItems = /\s*(?:[;；、，\n<>→]|(?<!\p{N}),|,(?!\p{N}{3}(?!\p{N})))\s*/u;

/** The signs between a list's items that say which is more: `<` or `>`, both where it is no order, or none. */
const signsIn = (text: string): string => [...new Set(text.replace(/[-=]>/g, '').match(/[<>]/g))].join('');

/** The items of a list in normal form, without their numbers, bullets or the "and" before the last; those that occur again are items of their own. */
function itemsOf(text: string, separator: RegExp | string, reversed = false): string[] {
  const seen = new Map<string, number>();
  const parts = text.split(separator);
  return (reversed ? parts.reverse() : parts)
    .map((item) => normalizeAnswer(item.replace(/^\s*(?:(?:\d+[.)]|[-*•])\s+|and\s+)/iu, '')))
    .filter((item) => item !== '')
    .map((item) => {
      const times = seen.get(item) ?? 0;
      seen.set(item, times + 1);
      return `${item}\n${times}`;
    });
}

/** Share of the pairs of two lists' items that stand in the same order in both. */
function concordance(said: readonly string[], right: readonly string[]): number {
  const items = [...new Set([...right, ...said])];
  const [one, other] = [said, right].map((list) => new Map(list.map((item, place) => [item, place])));
  let [concordant, pairs] = [0, 0];
  items.forEach((a, index) => {
    for (const b of items.slice(index + 1)) {
      pairs++;
      // NaN where one of them is missing.
      concordant += Number((one!.get(a)! - one!.get(b)!) * (other!.get(a)! - other!.get(b)!) > 0);
    }
  });
  return pairs > 0 ? concordant / pairs : Number(said.length > 0 && said[0] === right[0]);
}

/**
 * How well a list is ordered, against the best of the accepted ones: the share of pairs of items in the right order, which is
 * (τ + 1) / 2 of Kendall's τ for a permutation; so a list in reverse scores 0 and a random one 0.5 on the mean. A pair of which
 * an item is missing, or does not belong there, is not in order. Items are compared in the normal form of `exactMatch`; they
 * stand between commas, semicolons, `<`, `>`, `→` or line breaks, unless another `separator` is given. `c > b > a` is in the order
 * of `a < b < c`; a list with both signs has none, and scores 0.
 */
export function kendallTau(separator: RegExp | string = betweenItems): AnswerMetric {
  return {
    name: 'kendall-tau',
    score: (prediction, answers) => {
      const said = itemsOf(prediction ?? '', separator);
      const scores = answers.map((answer) => {
        const signs = separator === betweenItems ? [prediction ?? '', answer].map(signsIn) : [];
        if (signs.some((sign) => sign.length > 1)) return 0;
        const opposed = signs[0] !== signs[1] && !signs.includes('');
        return concordance(said, itemsOf(answer, separator, opposed));
      });
      const score = Math.max(0, ...scores);
      return { score, exactMatch: score === 1 };
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
