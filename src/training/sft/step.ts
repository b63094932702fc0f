// One optimizer step of supervised fine-tuning.
import type { TrainingSequence } from '../../domain/model.ts';
import { tf } from '../../tensor/index.ts';
import type { AdamW } from '../adamw.ts';
import { countLossTokens, padBatch, planPasses } from '../batches.ts';
import { computeGradients, type PassGradients, PassSum } from '../gradients.ts';
import type { DifferentiablePolicy, StepResult } from '../loop.ts';
import { computeSftLoss } from './loss.ts';

/**
 * Computes the sum over the passes of a batch in which `tokens` tokens count, the same wherever they are computed. The
 * gradients may be overwritten by the next call.
 */
export type ComputePasses = (
  passes: readonly (readonly TrainingSequence[])[],
  tokens: number,
) => Promise<PassGradients>;

export interface SftStepOptions {
  readonly learningRate: number;
  readonly tokensPerPass: number;
  /** Default: one pass after the other, on this thread. */
  readonly computePasses?: ComputePasses | undefined;
}

/**
 * Computes the loss and its gradient over the batch, pass by pass, and applies them. Leaves no tensor behind. Every
 * sequence must hold a token that counts (`trimSequence`).
 */
export async function takeSftStep(
  policy: DifferentiablePolicy,
  optimizer: AdamW,
  batch: readonly TrainingSequence[],
  { learningRate, tokensPerPass, computePasses = onThisThread(policy) }: SftStepOptions,
): Promise<StepResult> {
  const tokens = countLossTokens(batch);
  const { loss, gradients } = await computePasses(planPasses(batch, tokensPerPass), tokens);
  return { loss, gradNorm: optimizer.apply(gradients, learningRate), tokens };
}

const onThisThread =
  (policy: DifferentiablePolicy): ComputePasses =>
  async (passes, tokens) => {
    const sum = new PassSum();
    passes.forEach((pass, index) => {
      sum.add(index, computePassGradients(policy, pass, tokens));
    });
    return sum.total;
  };

/** The share of one pass in the loss of a batch in which `tokens` tokens count, and its gradient: see `computeGradients`. */
export function computePassGradients(
  policy: DifferentiablePolicy,
  pass: readonly TrainingSequence[],
  tokens: number,
  arrayFor?: (name: string, size: number) => Float32Array,
): PassGradients {
  return computeGradients(policy.parameters, () => computePassLoss(policy, pass, tokens), arrayFor);
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
