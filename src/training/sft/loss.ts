// The loss of supervised fine-tuning. Pure: tensors in, a scalar out.
import { tf, tokenNll } from '../../tensor/index.ts';

/**
 * Mean negative log-likelihood of the tokens that count, in nats:
 *
 * L = −(1/N) · Σₙ log softmax(zₙ)[yₙ]
 *
 * | symbol | here | meaning |
 * |---|---|---|
 * | zₙ | `logits` [n, vocab] | the model's output where token n is to be predicted |
 * | yₙ | `labels` int32 [n] | the token that was sampled there |
 * | N | `tokens` | tokens that count in the whole batch |
 *
 * Where a batch is split into several passes, N is still that of the batch, and the passes' losses (and
 * gradients) add up to the batch's.
 */
export function computeSftLoss(logits: tf.Tensor2D, labels: tf.Tensor1D, tokens: number): tf.Scalar {
  return tf.div(tf.sum(tokenNll(logits, labels)), tokens);
}
