// Supervised fine-tuning of a policy on the dialogues that were selected (docs/method.md §4).
import { OptimaError } from '../../domain/errors.ts';
import type { TrainingSequence } from '../../domain/model.ts';
import type { Rng } from '../../domain/rng.ts';
import { trimSequence } from '../batches.ts';
import { type EpochsOptions, type EpochsResult, trainEpochs } from '../epochs.ts';
import type { DifferentiablePolicy } from '../policy.ts';
import type { SftConfig } from './config.ts';
import { sftObjective } from './objective.ts';

export { defaultSftConfig, type SftConfig } from './config.ts';
export { sftExamples } from './examples.ts';
export { sftObjective } from './objective.ts';

/** The loss is in nats per token. */
export interface SftResult extends EpochsResult {
  /** Sequences trained on. */
  readonly sequences: number;
  /** Sequences left out because no token that counts lies within `maxSequenceTokens`. */
  readonly skipped: number;
  /** Sequences that lost tokens that count to `maxSequenceTokens`. */
  readonly truncated: number;
}

/** As `trainEpochs`; rejects with `selection.empty`, too, when no sequence holds a token that counts. */
export async function trainSft(
  policy: DifferentiablePolicy,
  sequences: readonly TrainingSequence[],
  config: SftConfig,
  rng: Rng,
  options?: EpochsOptions<TrainingSequence>,
): Promise<SftResult> {
  const { maxSequenceTokens } = config;
  const examples = sequences
    .map((sequence) => trimSequence(sequence, maxSequenceTokens))
    .filter((example) => example !== null);
  if (examples.length === 0) {
    throw new OptimaError(
      'selection.empty',
      `None of ${sequences.length} sequences has a token to train on.`,
    );
  }
  return {
    ...(await trainEpochs(policy, sftObjective, examples, config, rng, options)),
    sequences: examples.length,
    skipped: sequences.length - examples.length,
    truncated: sequences.filter(({ lossMask }) => lossMask.lastIndexOf(1) >= maxSequenceTokens).length,
  };
}
