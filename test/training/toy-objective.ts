// An objective that is none of ours: it pulls the sum of the toy policy's norm weights towards numbers.
import { tf } from '../../src/tensor/index.ts';
import type { Objective } from '../../src/training/objective.ts';

export interface Pull {
  readonly target: number;
  /** Terms that it counts for. */
  readonly weight: number;
}

/**
 * L = (1/N) · Σₙ wₙ · (s − tₙ)², with N = Σₙ wₙ. An example has ten tokens of which seven are learnt; of its
 * figures one is a mean as the loss is, and one a plain sum.
 */
export const pullObjective: Objective<Pull> = {
  // It is never made again from this.
  spec: { name: 'sft' },
  countTokens: (batch) => 7 * batch.length,
  countTerms: (batch) => batch.reduce((sum, { weight }) => sum + weight, 0),
  planPasses: (batch, tokensPerPass) =>
    Array.from({ length: Math.ceil((batch.length * 10) / tokensPerPass) }, (_, pass) =>
      batch.slice((pass * tokensPerPass) / 10, ((pass + 1) * tokensPerPass) / 10),
    ),
  computePass(policy, pass, terms) {
    const sum = tf.sum(policy.parameters.get('norm')!);
    const weights = tf.tensor1d(pass.map(({ weight }) => weight));
    const distances = tf.sub(sum, tf.tensor1d(pass.map(({ target }) => target)));
    return {
      loss: tf.div(tf.sum(tf.mul(weights, tf.square(distances))), terms),
      figures: {
        distance: tf.div(tf.sum(tf.mul(weights, tf.abs(distances))), terms),
        examples: tf.scalar(pass.length),
      },
    };
  },
};
