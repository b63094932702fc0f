import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Sampling } from '../../../src/domain/model.ts';
import { createRng, type Rng } from '../../../src/domain/rng.ts';
import { type Draw, sampleToken as sampleRow } from '../../../src/models/llama/sampler.ts';
import { plainLogits } from '../../../src/tensor/index.ts';

const sampleToken = (logits: Float32Array, sampling: Sampling, rng: Rng): Draw =>
  sampleRow(plainLogits(logits), sampling, rng);

const plain: Sampling = { temperature: 1, topP: 1, topK: 0, maxTokens: 1 };
const logitsOf = (probabilities: number[]) => Float32Array.from(probabilities, Math.log);

/** Relative frequency of every id over many draws. */
function frequencies(logits: Float32Array, sampling: Partial<Sampling>, draws = 20_000): number[] {
  const rng = createRng(1);
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) counts[sampleToken(logits, { ...plain, ...sampling }, rng).id]!++;
  return counts.map((count) => count / draws);
}

function assertNear(actual: number[], expected: number[], tolerance = 0.015): void {
  actual.forEach((value, i) => {
    assert.ok(Math.abs(value - expected[i]!) < tolerance, `entry ${i}: ${value}, expected ${expected[i]}`);
  });
}

test('temperature 0 takes the most likely id, the lowest on a tie, and draws no number', () => {
  const rng = createRng(3);
  const untouched = createRng(3);
  const { id } = sampleToken(Float32Array.of(1, 5, 2, 5), { ...plain, temperature: 0 }, rng);
  assert.is(id, 1);
  assert.is(rng.next(), untouched.next());
});

test('the log-probability is that of temperature 1 without filters', () => {
  const logits = logitsOf([0.1, 0.6, 0.3]);
  const draw = sampleToken(logits, { ...plain, temperature: 0.2, topK: 1 }, createRng(1));
  assert.is(draw.id, 1);
  assert.ok(Math.abs(draw.logprob - Math.log(0.6)) < 1e-6);
});

test('unfiltered draws follow the probabilities', () => {
  assertNear(frequencies(logitsOf([0.1, 0.2, 0.3, 0.4]), {}), [0.1, 0.2, 0.3, 0.4]);
});

test('temperature divides the logits', () => {
  // p ∝ exp(ln p / 0.5) = p²
  assertNear(frequencies(logitsOf([0.2, 0.8]), { temperature: 0.5 }), [0.04 / 0.68, 0.64 / 0.68]);
});

test('top-k keeps the k most likely, the lower id on a tie', () => {
  assertNear(frequencies(logitsOf([0.25, 0.15, 0.45, 0.15]), { topK: 3 }), [
    0.25 / 0.85,
    0.15 / 0.85,
    0.45 / 0.85,
    0,
  ]);
});

test('top-p keeps the smallest set that reaches p', () => {
  assertNear(frequencies(logitsOf([0.1, 0.5, 0.15, 0.25]), { topP: 0.7 }), [0, 0.5 / 0.75, 0, 0.25 / 0.75]);
});

test('top-p always keeps one token, however small p is', () => {
  assertNear(frequencies(logitsOf([0.3, 0.4, 0.3]), { topP: 1e-9 }), [0, 1, 0]);
});

test('top-p counts the probability among what top-k kept', () => {
  // Of the top two, 0.5 and 0.3, the first alone has 0.625.
  assertNear(frequencies(logitsOf([0.2, 0.5, 0.3]), { topK: 2, topP: 0.6 }), [0, 1, 0]);
});

test('a p just below 1 keeps every token that can occur', () => {
  const kept = frequencies(logitsOf([0.4, 0.3, 0.2, 0.1]), { topP: 1 - Number.EPSILON / 2 });
  assertNear(kept, [0.4, 0.3, 0.2, 0.1]);
});

test('filters keep the same tokens in a vocabulary of thousands as sorting it would', () => {
  const rng = createRng(9);
  const logits = Float32Array.from({ length: 4000 }, () => 8 * rng.next());
  const ranked = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
  let mass = 0;
  const nucleus = new Set(
    ranked.filter((id) => {
      const wanted = mass < 0.3 * total;
      mass += Math.exp(logits[id]!);
      return wanted;
    }),
  );
  const top = new Set(ranked.slice(0, 50));
  for (let i = 0; i < 500; i++) {
    assert.ok(nucleus.has(sampleToken(logits, { ...plain, topP: 0.3 }, rng).id));
    assert.ok(top.has(sampleToken(logits, { ...plain, topK: 50 }, rng).id));
  }
});

test('an impossible token is never drawn', () => {
  const logits = Float32Array.of(Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY);
  assertNear(frequencies(logits, {}, 200), [0, 1, 0]);
});

test('the same seed draws the same ids', () => {
  const logits = logitsOf([0.25, 0.25, 0.25, 0.25]);
  const draw = () => {
    const rng = createRng(11);
    return Array.from({ length: 50 }, () => sampleToken(logits, plain, rng).id);
  };
  assert.equal(draw(), draw());
  assert.is(new Set(draw()).size, 4);
});

test('a logit that is not a number shows in the log-probability', () => {
  for (const at of [0, 1, 2]) {
    const logits = Float32Array.of(1, 2, 3);
    logits[at] = Number.NaN;
    assert.not(Number.isFinite(sampleToken(logits, plain, createRng(1)).logprob));
  }
});

test.run();
