// Which sequences share a step, which share a pass, and which positions count.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TrainingSequence } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import {
  countLossTokens,
  padBatch,
  planPasses,
  shuffledBatches,
  trimSequence,
} from '../../src/training/batches.ts';

const sequence = (tokenIds: number[], mask: string): TrainingSequence => ({
  tokenIds,
  lossMask: Array.from(mask, (digit) => (digit === '1' ? 1 : 0)),
});
const ofLength = (length: number) =>
  sequence(
    Array.from({ length }, (_, i) => i),
    '1'.repeat(length),
  );

test('an epoch covers every example exactly once, in batches of nearly equal size', () => {
  for (const count of [1, 5, 32, 33, 100]) {
    const items = Array.from({ length: count }, (_, i) => i);
    const batches = shuffledBatches(items, 16, createRng(count));
    assert.equal(
      batches.flat().sort((a, b) => a - b),
      items,
    );
    const sizes = batches.map((batch) => batch.length);
    assert.ok(Math.max(...sizes) <= 16);
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
    assert.is(batches.length, Math.ceil(count / 16));
  }
});

test('the same seed deals the same batches, another seed others', () => {
  const items = Array.from({ length: 40 }, (_, i) => i);
  const deal = (seed: number) => shuffledBatches(items, 8, createRng(seed));
  assert.equal(deal(1), deal(1));
  assert.not.equal(deal(1), deal(2));
  assert.equal(deal(1).flat(), createRng(1).shuffle(items));
});

test('passes hold each sequence once and keep to the token budget, unless one sequence alone exceeds it', () => {
  const rng = createRng('passes');
  const batch = [ofLength(70), ...Array.from({ length: 50 }, () => ofLength(2 + rng.int(30)))];
  const passes = planPasses(batch, 64);
  assert.equal(new Set(passes.flat()), new Set(batch));
  assert.is(passes.flat().length, batch.length);
  for (const pass of passes) {
    const padded = pass.length * Math.max(...pass.map(({ tokenIds }) => tokenIds.length));
    assert.ok(padded <= 64 || pass.length === 1);
  }
  assert.equal(planPasses(batch, 64), passes);
});

test('several passes are of about one size, and as many as two or four threads end together', () => {
  for (const count of [17, 32, 40]) {
    const passes = planPasses(
      Array.from({ length: count }, () => ofLength(100)),
      900,
    );
    assert.is(passes.length % 4, 0);
    const sizes = passes.map((pass) => pass.length);
    assert.ok(Math.max(...sizes) <= Math.ceil(count / passes.length), `${sizes} for ${count}`);
  }
  assert.is(planPasses([ofLength(100), ofLength(50)], 900).length, 1);
});

/** The lengths in each pass of sequences of these lengths. */
const planned = (lengths: number[], tokensPerPass: number) =>
  planPasses(lengths.map(ofLength), tokensPerPass).map((pass) => pass.map(({ tokenIds }) => tokenIds.length));

test('a pass is filled to the last token of its budget, the longest first', () => {
  assert.equal(planned([3, 5, 4], 15), [[5, 4, 3]]);
  // With one token less two passes are needed, and up to four are made.
  assert.equal(planned([3, 5, 4], 14), [[5], [4], [3]]);
  assert.equal(planned([], 14), []);
  assert.equal(planned([20], 14), [[20]]);
});

test('passes are as small as their number, rounded up to a multiple of four, allows', () => {
  // At 40 tokens there are 4 + 4 + 1 sequences; four passes or fewer do with 30 tokens each, and not with 29.
  const nine = Array.from({ length: 9 }, () => 10);
  assert.equal(planned(nine, 40), [nine.slice(0, 3), nine.slice(3, 6), nine.slice(6)]);
  // Of nine single tokens three are the least that does; two would make five passes.
  assert.equal(
    planned(
      Array.from({ length: 9 }, () => 1),
      4,
    ),
    Array.from({ length: 3 }, () => [1, 1, 1]),
  );
  // Five passes of 10 tokens become eight of 5.
  assert.equal(planned([5, 5, 5, 5, 5, 5, 5, 2, 2], 10), [[5], [5], [5], [5], [5], [5], [5], [2, 2]]);
  // Ten sequences do not fit in eight smaller passes, so the five stay.
  assert.equal(
    planned([5, 5, 5, 5, 5, 5, 5, 5, 5, 5], 10),
    Array.from({ length: 5 }, () => [5, 5]),
  );
});

test('a padded batch predicts each counting token from the position before it', () => {
  const batch = padBatch([sequence([11, 12, 13], '011'), sequence([21, 22, 23, 24, 25], '10010')], 9);
  assert.is(batch.rows, 2);
  assert.is(batch.time, 4);
  assert.equal([...batch.inputIds], [11, 12, 9, 9, 21, 22, 23, 24]);
  assert.equal([...batch.positions], [0, 1, 6]);
  assert.equal([...batch.labels], [12, 13, 24]);
});

test('a first token that counts cannot be predicted and is not counted', () => {
  assert.is(countLossTokens([sequence([1, 2, 3], '101'), sequence([1, 2], '10')]), 1);
  assert.is(countLossTokens([sequence([1, 2, 3], '111'), sequence([1, 2], '01')]), 3);
  assert.is(countLossTokens([]), 0);
  const { positions, labels } = padBatch([sequence([1, 2, 3], '111')], 0);
  assert.equal(
    [[...positions], [...labels]],
    [
      [0, 1],
      [2, 3],
    ],
  );
});

test('trimming ends a sequence at its last counting token within the limit', () => {
  assert.equal(trimSequence(sequence([1, 2, 3, 4, 5], '01010'), 10), sequence([1, 2, 3, 4], '0101'));
  assert.equal(trimSequence(sequence([1, 2, 3, 4, 5], '01010'), 3), sequence([1, 2], '01'));
  assert.equal(trimSequence(sequence([1, 2, 3, 4], '0011'), 3), sequence([1, 2, 3], '001'));
  assert.equal(trimSequence(sequence([1, 2], '01'), 2), sequence([1, 2], '01'));
  assert.is(trimSequence(sequence([1, 2, 3], '001'), 2), null);
  assert.is(trimSequence(sequence([1, 2, 3], '100'), 3), null);
});

test.run();
