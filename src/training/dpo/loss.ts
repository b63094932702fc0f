// The losses of preference training, from the log-probabilities of whole turns. Pure: tensors in, tensors out.
import { tf } from '../../tensor/index.ts';

/** Which loss, and its settings. */
export interface PreferenceLoss {
  readonly loss: 'dpo' | 'ipo' | 'simpo';
  /** β: how strongly the policy is held to the reference. */
  readonly beta: number;
  /** α: weight of the chosen turn's own loss; 1 in iterative RPO, 0 in plain DPO. */
  readonly alpha: number;
  /** γ: the margin that SimPO asks for. */
  readonly simpoGamma: number;
}

/** n pairs: log-probabilities of their turns, summed over tokens (nats), and how many tokens those are; all [n]. */
export interface TurnLogprobs {
  readonly chosen: tf.Tensor1D;
  readonly rejected: tf.Tensor1D;
  /** Under the frozen reference. */
  readonly refChosen: tf.Tensor1D;
  readonly refRejected: tf.Tensor1D;
  readonly chosenTokens: tf.Tensor1D;
  readonly rejectedTokens: tf.Tensor1D;
}

/**
 * The loss of each pair [n], with x the history, w and l the chosen and the rejected turn, π the policy and r the reference:
 *
 * | loss | formula | source |
 * |---|---|---|
 * | `dpo` | −log σ(β·(log π(w)/r(w) − log π(l)/r(l))) | Rafailov et al., arXiv 2305.18290, Eq. 7 |
 * | `ipo` | (log π(w)/r(w) / \|w\| − log π(l)/r(l) / \|l\| − 1/(2β))² | Azar et al., arXiv 2310.12036, Eq. 17, averaged over tokens as in TRL |
 * | `simpo` | −log σ(β·(log π(w) / \|w\| − log π(l) / \|l\|) − γ) | Meng et al., arXiv 2405.14734, Eq. 6 |
 *
 * To each is added −α · log π(w) / |w|, the chosen turn's own loss: with `dpo` and α = 1 that is Eq. 4 of Optima, iterative RPO
 * (Pang et al., arXiv 2404.19733).
 */
export function preferenceLosses(
  logprobs: TurnLogprobs,
  { loss, beta, alpha, simpoGamma }: PreferenceLoss,
): tf.Tensor1D {
  const { chosen, rejected, refChosen, refRejected, chosenTokens, rejectedTokens } = logprobs;
  const better = tf.sub(chosen, refChosen);
  const worse = tf.sub(rejected, refRejected);
  const own = tf.neg(tf.div(chosen, chosenTokens));
  const preference = {
    dpo: () => tf.softplus(tf.mul(tf.sub(worse, better), beta)),
    ipo: () => {
      const margin = tf.sub(tf.div(better, chosenTokens), tf.div(worse, rejectedTokens));
      return tf.square(tf.sub(margin, 1 / (2 * beta)));
    },
    simpo: () => {
      const margin = tf.sub(tf.div(chosen, chosenTokens), tf.div(rejected, rejectedTokens));
      return tf.softplus(tf.sub(simpoGamma, tf.mul(margin, beta)));
    },
  }[loss]();
  return tf.add(preference, tf.mul(own, alpha));
}
