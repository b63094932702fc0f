// What each reward term is for (docs/method.md §10), on the dialogues that the shipped model held in the first phase
// of `optima train two-hop-qa`: 24 training tasks, 8 dialogues each, with the terms as that run's log has them.
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { computeReward, type RewardTerms } from '../../src/domain/reward.ts';
import type { RankedTrajectory } from '../../src/reading/ranking.ts';
import { selectTrajectories } from '../../src/reading/selection.ts';

type Recorded = Omit<RankedTrajectory, 'reward'> & { readonly turns: readonly string[] };
const recorded: readonly Recorded[] = JSON.parse(
  readFileSync(new URL('golden/two-hop-qa-dialogues.json', import.meta.url), 'utf8'),
);
const weights = { lambdaToken: 0.6, lambdaLoss: 0.1 };

/** The best dialogue of each task under these weights, and their means. */
function chosen(change: { lambdaToken?: number; lambdaLoss?: number; task?: number }) {
  const { task, ...lambdas } = change;
  const rewardOf = (terms: RewardTerms) =>
    computeReward({ ...terms, task: terms.task * (task ?? 1) }, { ...weights, ...lambdas });
  const ranking = recorded.map((one) => ({ ...one, reward: one.terms && rewardOf(one.terms) }));
  const { kept } = selectTrajectories(ranking, { threshold: Number.NEGATIVE_INFINITY, keepFraction: 1 });
  const ids = new Set(kept.map(({ dialogueId }) => dialogueId));
  const best = recorded.filter(({ dialogueId }) => ids.has(dialogueId));
  const mean = (value: (one: Recorded) => number) =>
    best.reduce((sum, one) => sum + value(one), 0) / best.length;
  return {
    ids,
    tokens: mean((one) => one.tokens),
    score: mean((one) => one.terms!.task),
    loss: mean((one) => one.terms!.loss),
  };
}

const whole = chosen({});

test('every task has a chosen dialogue', () => {
  assert.is(whole.ids.size, 24);
});

test('without the token term other dialogues are chosen, and they are longer', () => {
  const without = chosen({ lambdaToken: 0 });
  assert.not.equal(without.ids, whole.ids);
  assert.ok(without.tokens > 1.25 * whole.tokens, `${without.tokens} tokens against ${whole.tokens}`);
});

test('without the loss term other dialogues are chosen: terser ones, further from how the base talks', () => {
  const without = chosen({ lambdaLoss: 0 });
  assert.not.equal(without.ids, whole.ids);
  assert.ok(without.loss > 1.1 * whole.loss, `R_loss ${without.loss} against ${whole.loss}`);
  assert.ok(without.tokens <= whole.tokens, `${without.tokens} tokens against ${whole.tokens}`);
});

test('without the task score other dialogues are chosen, and their answers are worse', () => {
  const without = chosen({ task: 0 });
  assert.not.equal(without.ids, whole.ids);
  assert.ok(without.score < 0.8 * whole.score, `score ${without.score} against ${whole.score}`);
});

test.run();
