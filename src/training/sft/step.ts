// One optimizer step of supervised fine-tuning.
import type { TrainingSequence } from '../../domain/model.ts';
import { tf } from '../../tensor/index.ts';
import type { AdamW } from '../adamw.ts';
import { countLossTokens, padBatch, planPasses } from '../batches.ts';
import { sumGradients } from '../gradients.ts';
import type { DifferentiablePolicy, StepResult } from '../loop.ts';
import { computeSftLoss } from './loss.ts';

/**
 * Computes the loss and its gradient over the batch, pass by pass, and applies them. Synchronous; leaves no
 * tensor behind. Every sequence must hold a token that counts (`trimSequence`).
 */
export function takeSftStep(
  policy: DifferentiablePolicy,
  optimizer: AdamW,
  batch: readonly TrainingSequence[],
  options: { readonly learningRate: number; readonly tokensPerPass: number },
): StepResult {
  const tokens = countLossTokens(batch);
  const { loss, gradients } = sumGradients(
    policy.parameters.values(),
    planPasses(batch, options.tokensPerPass).map((pass) => () => computePassLoss(policy, pass, tokens)),
  );
  return { loss, gradNorm: optimizer.apply(gradients, options.learningRate), tokens };
}

function computePassLoss(
  policy: DifferentiablePolicy,
  pass: readonly TrainingSequence[],
  tokens: number,
): tf.Scalar {
  const { inputIds, rows, time, positions, labels } = padBatch(pass, policy.tokenizer.padId);
  const logits = policy.computeLogits(
    tf.tensor2d(inputIds, [rows, time], 'int32'),
    tf.tensor1d(positions, 'int32'),
  ); // [n, vocab]
  return computeSftLoss(logits, tf.tensor1d(labels, 'int32'), tokens);
}
