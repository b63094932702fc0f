import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { computeLossTerm, computeReward } from '../../src/domain/reward.ts';

const refusal = (run: () => unknown): OptimaError => {
  try {
    run();
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'reward.invalid');
    return error as OptimaError;
  }
  throw new Error('nothing was thrown');
};

test('the reward is the task score, less the token share, plus the readability, each with its weight', () => {
  // 0.75 − 0.5 · 0.25 + 3 / 4 = 1.375, exact in binary.
  const terms = { task: 0.75, tokenShare: 0.25, loss: 4 };
  assert.is(computeReward(terms, { lambdaToken: 0.5, lambdaLoss: 3 }), 1.375);
  assert.is(computeReward(terms, { lambdaToken: 0, lambdaLoss: 0 }), 0.75);
  assert.is(computeReward({ ...terms, task: 0 }, { lambdaToken: 4, lambdaLoss: 0 }), -1);
});

test('a reward that is not finite is refused with its terms', () => {
  const weights = { lambdaToken: 1, lambdaLoss: 1 };
  assert.is(
    refusal(() => computeReward({ task: 1, tokenShare: 0.5, loss: 0 }, weights)).message,
    'Reward is Infinity (task 1, token share 0.5, loss 0).',
  );
  for (const field of ['task', 'tokenShare', 'loss']) {
    refusal(() => computeReward({ task: 1, tokenShare: 1, loss: 1, [field]: Number.NaN }, weights));
  }
});

test('the loss term is the mean of the worst turn, wherever it stands', () => {
  // Means 0.5, 2 and 1; the sums would name another turn: 2, 2 and 5.
  const turns = [[-0.5, -0.25, -0.5, -0.75], [-2], [-1, -1, -1, -1, -1]];
  for (const shift of [0, 1, 2]) {
    assert.is(computeLossTerm([...turns.slice(shift), ...turns.slice(0, shift)], 0.01), 2);
  }
});

test('an empty turn is left out of the loss term, and a dialogue of nothing else is refused', () => {
  assert.is(computeLossTerm([[], [-0.25, -0.75], []], 0.01), 0.5);
  for (const turns of [[], [[]], [[], []]]) {
    assert.match(refusal(() => computeLossTerm(turns, 0.01)).message, 'the dialogue has no scored token');
  }
});

test('a loss below the floor counts as the floor', () => {
  assert.is(computeLossTerm([[-0.01], [-0.03]], 0.5), 0.5);
  assert.is(computeLossTerm([[-0.01], [-0.75]], 0.5), 0.75);
  assert.is(computeLossTerm([[0, 0]], 0.5), 0.5);
});

test('a log-probability that is not finite in any turn refuses the loss term', () => {
  for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]) {
    refusal(() => computeLossTerm([[bad]], 0.5));
  }
  for (const bad of [Number.NaN, Number.NEGATIVE_INFINITY]) {
    refusal(() => computeLossTerm([[-1, bad], [-1]], 0.5));
    refusal(() => computeLossTerm([[-1], [bad, -1], []], 0.5));
  }
});

test.run();
