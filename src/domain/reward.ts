// The reward of a trajectory (Optima, Eq. 1) and its three terms. Pure arithmetic.
//
// symbol      here            meaning
// R_task      task            task score of the dialogue, in [0, 1]
// R_token     tokenShare      its tokens over the most tokens any dialogue of the same task took, in [0, 1]
// R_loss      loss            max over turns of the mean negative log-likelihood per token under the base, nats
// λ_token     lambdaToken     weight of the token share
// λ_loss      lambdaLoss      weight of the readability 1 / R_loss
import { OptimaError } from './errors.ts';

export interface RewardWeights {
  readonly lambdaToken: number;
  readonly lambdaLoss: number;
}

export interface RewardTerms {
  readonly task: number;
  readonly tokenShare: number;
  /** R_loss in nats; must be positive. */
  readonly loss: number;
}

/** R = R_task − λ_token · R_token + λ_loss / R_loss. Throws `reward.invalid` when the result is not finite. */
export function computeReward(terms: RewardTerms, weights: RewardWeights): number {
  const reward = terms.task - weights.lambdaToken * terms.tokenShare + weights.lambdaLoss / terms.loss;
  if (!Number.isFinite(reward)) {
    throw new OptimaError(
      'reward.invalid',
      `Reward is ${reward} (task ${terms.task}, token share ${terms.tokenShare}, loss ${terms.loss}).`,
    );
  }
  return reward;
}

/** The reward of each role: R of its own seat's score, and of the tokens and the readability of the whole dialogue. */
export function computeSeatRewards(
  seats: Readonly<Record<string, number>>,
  terms: RewardTerms,
  weights: RewardWeights,
): Readonly<Record<string, number>> {
  return Object.fromEntries(
    Object.entries(seats).map(([role, task]) => [role, computeReward({ ...terms, task }, weights)]),
  );
}

/**
 * R_loss: the worst turn's mean negative log-likelihood per token, in nats (appendix H.2).
 * `turns` are the base model's log-probabilities of each turn's tokens. An empty turn has no mean and is
 * left out; a dialogue without any scored token throws `reward.invalid`. A loss below `floor` counts as
 * `floor`, so that a text the base knows by heart cannot earn an unbounded readability.
 */
export function computeLossTerm(turns: readonly (readonly number[])[], floor: number): number {
  let worst = Number.NEGATIVE_INFINITY;
  for (const logprobs of turns) {
    if (logprobs.length === 0) continue;
    const mean = -logprobs.reduce((sum, value) => sum + value, 0) / logprobs.length;
    worst = Math.max(worst, mean);
  }
  if (!Number.isFinite(worst)) {
    throw new OptimaError('reward.invalid', `Loss term is ${worst}: the dialogue has no scored token.`);
  }
  return Math.max(worst, floor);
}
