// Ready-made metrics, computed on normalised answers as the SQuAD evaluation does.
import type { Metric } from './types.ts';

/**
 * The SQuAD normal form of an answer: lower case, without punctuation, without the articles a, an, the,
 * single spaces (Rajpurkar et al., 2016). Commas inside numbers go too, so `1,000` equals `1000`.
 */
export function normalizeAnswer(text: string): string {
  return text
    .toLowerCase()
    .replace(/[\p{P}\p{S}]/gu, '')
    .replace(/\b(a|an|the)\b/g, ' ')
    .replace(/\s+/g, ' ')
    .trim();
}

/** Token-overlap F1 of two answers in normal form, in [0, 1]; two empty answers agree. */
export function answerF1(prediction: string, truth: string): number {
  const predicted = normalizeAnswer(prediction).split(' ').filter(Boolean);
  const expected = normalizeAnswer(truth).split(' ').filter(Boolean);
  if (predicted.length === 0 || expected.length === 0) return predicted.length === expected.length ? 1 : 0;
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

/** F1 against the best of the accepted answers; no answer scores 0. */
export const f1: Metric = {
  name: 'f1',
  score: (prediction, answers) =>
    prediction === null
      ? { score: 0, exactMatch: false }
      : {
          score: Math.max(...answers.map((answer) => answerF1(prediction, answer))),
          exactMatch: matches(prediction, answers),
        },
};

/** 1 when the answer equals one of the accepted answers in normal form, else 0. */
export const exactMatch: Metric = {
  name: 'exact-match',
  score: (prediction, answers) => {
    const hit = prediction !== null && matches(prediction, answers);
    return { score: hit ? 1 : 0, exactMatch: hit };
  },
};

function matches(prediction: string, answers: readonly string[]): boolean {
  const normal = normalizeAnswer(prediction);
  return answers.some((answer) => normalizeAnswer(answer) === normal);
}
