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

/** A generator that gives one number and counts how often it is asked. */
function fixed(number: number) {
  const rng = {
    asked: 0,
    next() {
      rng.asked++;
      return number;
    },
  };
  return rng as unknown as Rng & { asked: number };
}

test('every draw above temperature 0 takes one number, whatever the filters', () => {
  for (const filters of [
    {},
    { topK: 2 },
    { topP: 0.6 },
    { topK: 3, topP: 0.5 },
    { topK: 9 },
    { topP: 1e-9 },
  ]) {
    const rng = fixed(0.5);
    sampleToken(logitsOf([0.1, 0.2, 0.3, 0.4]), { ...plain, ...filters }, rng);
    assert.is(rng.asked, 1, JSON.stringify(filters));
  }
  const rng = fixed(0.5);
  sampleToken(logitsOf([0.4, 0.6]), { ...plain, temperature: 0, topK: 1, topP: 0.1 }, rng);
  assert.is(rng.asked, 0);
});

test('temperature applies before top-p: a cold nucleus is smaller, a hot one larger', () => {
  const logits = logitsOf([0.5, 0.3, 0.2]);
  const lastOf = (sampling: Partial<Sampling>) =>
    sampleToken(logits, { ...plain, ...sampling }, fixed(0.999_999)).id;
  // Shares 0.5, 0.3, 0.2; at 0.5 they are 0.66, 0.24, 0.11, and at 2 they are 0.42, 0.32, 0.26.
  assert.equal([lastOf({ topP: 0.6 }), lastOf({ topP: 0.6, temperature: 0.5 })], [1, 0]);
  assert.equal([lastOf({ topP: 0.45 }), lastOf({ topP: 0.45, temperature: 2 })], [0, 1]);
  assert.equal([lastOf({ topP: 0.75 }), lastOf({ topP: 0.75, temperature: 2 })], [1, 2]);
});

/** A row whose exponentials are these very weights; their sum may be told wrongly, as rounding does. */
function rowOf(weights: number[], sum = weights.reduce((total, weight) => total + weight)) {
  const values = Float32Array.from(weights);
  return { ...plainLogits(values), exponentials: () => ({ weights: values, sum }) };
}

test('a nucleus that reaches p exactly is complete', () => {
  const last = (topP: number) => sampleRow(rowOf([0.5, 1, 0.5]), { ...plain, topP }, fixed(0.999_999)).id;
  assert.equal([0.5, 0.500_001, 0.75, 0.750_001].map(last), [1, 0, 0, 2]);
  // The number 0.5 stands just behind the first of two halves, not in it.
  const half = (number: number) => sampleRow(rowOf([1, 1]), plain, fixed(number)).id;
  assert.equal([0, 0.499_999, 0.5, 0.999_999].map(half), [0, 0, 1, 1]);
  // The smallest p there is leaves the first of all that are equally likely.
  assert.is(sampleRow(rowOf([1, 1, 1]), { ...plain, topP: Number.MIN_VALUE }, fixed(0.9)).id, 0);
});

test('where rounding leaves nothing under the number, the last token that can occur is drawn', () => {
  for (const filters of [{}, { topP: 0.999_999 }, { topK: 3 }]) {
    const { id } = sampleRow(rowOf([0, 1, 1, 0], 2.1), { ...plain, ...filters }, fixed(1));
    assert.is(id, 2, JSON.stringify(filters));
  }
});

test('tokens that are never drawn take no place in a filter, and the others keep their log-probabilities', () => {
  const probabilities = [0.1, 0.5, 0.2, 0.15, 0.05];
  const draw = (sampling: Partial<Sampling>, number: number) =>
    sampleRow(plainLogits(logitsOf(probabilities)), { ...plain, ...sampling }, fixed(number), [1, 4]);
  const last = 0.999_999;
  // Left are 0.1, 0.2 and 0.15 of 0.45.
  assert.equal(
    [0, 0.2, 0.3, last].map((number) => draw({}, number).id),
    [0, 0, 2, 3],
  );
  assert.is(draw({ temperature: 0 }, 0).id, 2);
  assert.equal([draw({ topK: 2 }, last).id, draw({ topK: 4 }, last).id], [3, 0]);
  assert.equal([draw({ topP: 0.4 }, last).id, draw({ topP: 0.5 }, last).id], [2, 3]);
  for (const sampling of [{}, { temperature: 0 }, { topK: 1 }, { temperature: 3, topP: 0.2 }]) {
    const { id, logprob } = draw(sampling, 0.7);
    assert.ok(Math.abs(logprob - Math.log(probabilities[id]!)) < 1e-6, JSON.stringify(sampling));
  }
});

test('a token that is never drawn leaves the others their weights, however far above them it is', () => {
  const logits = () => plainLogits(Float32Array.of(1, 900, 1, 2));
  const ids = [0.1, 0.3, 0.9].map((number) => sampleRow(logits(), plain, fixed(number), [1]).id);
  // exp(1), exp(1) and exp(2): shares of 0.21, 0.21 and 0.58.
  assert.equal(ids, [0, 2, 3]);
  assert.is(sampleRow(logits(), plain, fixed(0.9), [1]).logprob, -898);
  const broken = plainLogits(Float32Array.of(1, Number.NaN, 2));
  assert.not(Number.isFinite(sampleRow(broken, plain, fixed(0.5), [1]).logprob));
});

/** What `sampleToken` should draw: all tokens sorted, then cut to k, then to p, and the share that holds the number. */
function drawBySorting(logits: Float32Array, { temperature, topK, topP }: Sampling, number: number): number {
  const highest = Math.max(...logits);
  const { weights } = plainLogits(logits).exponentials(highest, 1 / temperature);
  const ranked = [...logits.keys()];
  const filtered = topP < 1 || (topK > 0 && topK < logits.length);
  if (filtered) ranked.sort((a, b) => weights[b]! - weights[a]! || a - b);
  const top = topK > 0 ? ranked.slice(0, topK) : ranked;
  const sumOf = (ids: number[]) => ids.reduce((sum, id) => sum + weights[id]!, 0);
  // Without top-k the whole is the sum in the order of the ids.
  const whole = top.length < ranked.length ? sumOf(top) : sumOf([...logits.keys()]);
  let size = 1;
  while (size < top.length && sumOf(top.slice(0, size)) < topP * whole) size++;
  const kept = filtered ? top.slice(0, size) : top;
  const target = number * sumOf(kept);
  const at = kept.findIndex((id, i) => weights[id]! > 0 && sumOf(kept.slice(0, i + 1)) > target);
  return at < 0 ? kept.findLast((id) => weights[id]! > 0)! : kept[at]!;
}

test('every draw is the one that sorting, cutting and adding up gives, ties included', () => {
  const rng = createRng('by sorting');
  for (let round = 0; round < 3000; round++) {
    const size = 1 + rng.int(24);
    // Few different values, so that ties are common; now and then a token that cannot occur.
    const logits = Float32Array.from({ length: size }, () => rng.int(6) / 2);
    if (size > 1 && rng.int(4) === 0) logits[rng.int(size)] = Number.NEGATIVE_INFINITY;
    const sampling = {
      temperature: rng.pick([0.3, 0.7, 1, 1.5, 4]),
      topK: rng.pick([0, 0, 1, 2, 3, 5, 8, size, size + 3]),
      topP: rng.pick([1, 1, 0.97, 0.9, 0.61, 0.33, 0.05]),
      maxTokens: 1,
    };
    const number = rng.pick([0, rng.next(), rng.next(), 1 - 2 ** -32]);
    if (logits.every((logit) => logit === Number.NEGATIVE_INFINITY)) continue;
    assert.is(
      sampleToken(logits, sampling, fixed(number)).id,
      drawBySorting(logits, sampling, number),
      `${[...logits]} ${JSON.stringify(sampling)} ${number}`,
    );
  }
});

test.run();
