// The objective of supervised fine-tuning: the mean loss of the tokens that count.
import type { TrainingSequence } from '../../domain/model.ts';
import { tf } from '../../tensor/index.ts';
import { countLossTokens, padBatch, planPasses } from '../batches.ts';
import type { Objective } from '../objective.ts';
import { computeSftLoss } from './loss.ts';

/** Every sequence of a batch must hold a token that counts (`trimSequence`). */
export const sftObjective: Objective<TrainingSequence> = {
  spec: { name: 'sft' },
  countTokens: countLossTokens,
  countTerms: countLossTokens,
  planPasses,
  computePass(policy, pass, terms) {
    const { inputIds, rows, time, positions, labels } = padBatch(pass, policy.tokenizer.padId);
    const logits = policy.computeLogits(
      tf.tensor2d(inputIds, [rows, time], 'int32'),
      tf.tensor1d(positions, 'int32'),
    ); // [n, vocab]
    return { loss: computeSftLoss(logits, tf.tensor1d(labels, 'int32'), terms), figures: {} };
  },
};
