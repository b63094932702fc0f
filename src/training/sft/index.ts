// Supervised fine-tuning of a policy on the dialogues that were selected (docs/method.md §4).
import { OptimaError } from '../../domain/errors.ts';
import type { TrainingSequence } from '../../domain/model.ts';
import type { Rng } from '../../domain/rng.ts';
import { shuffledBatches, trimSequence } from '../batches.ts';
import { type DifferentiablePolicy, runTraining, type StepReport, type TrainingOptions } from '../loop.ts';
import { warmupCosine } from '../schedule.ts';
import type { SftConfig } from './config.ts';
import { type SftStepOptions, takeSftStep } from './step.ts';

export { defaultSftConfig, type SftConfig } from './config.ts';
export { sftExamples } from './examples.ts';

export interface SftResult {
  readonly steps: number;
  /** Mean loss of the last epoch, nats per token. */
  readonly loss: number;
  /** Sequences trained on. */
  readonly sequences: number;
  /** Sequences left out because no token that counts lies within `maxSequenceTokens`. */
  readonly skipped: number;
  /** Sequences that lost tokens that count to `maxSequenceTokens`. */
  readonly truncated: number;
}

/**
 * Trains the policy's weights in place and refreshes its hash. The order of examples comes from `rng`.
 * Rejects as `runTraining` does, and with `selection.empty` when no sequence holds a token that counts.
 */
export async function trainSft(
  policy: DifferentiablePolicy,
  sequences: readonly TrainingSequence[],
  config: SftConfig,
  rng: Rng,
  { computePasses, ...options }: TrainingOptions & Pick<SftStepOptions, 'computePasses'> = {},
): Promise<SftResult> {
  const { epochs, batchSize, learningRate: peak, maxSequenceTokens, tokensPerPass } = config;
  const examples = sequences
    .map((sequence) => trimSequence(sequence, maxSequenceTokens))
    .filter((example) => example !== null);
  if (examples.length === 0) {
    throw new OptimaError(
      'selection.empty',
      `None of ${sequences.length} sequences has a token to train on.`,
    );
  }
  const batches = Array.from({ length: epochs }, (_, epoch) =>
    shuffledBatches(examples, batchSize, rng.split(`epoch-${epoch}`)),
  ).flat();
  const steps = batches.length;
  const reports = await runTraining(
    policy,
    {
      steps,
      schedule: warmupCosine({
        peak,
        floor: peak * config.floorFraction,
        warmupSteps: Math.round(steps * config.warmupFraction),
        steps,
      }),
      optimizer: config,
      takeStep: (optimizer, index, learningRate) =>
        takeSftStep(policy, optimizer, batches[index]!, { learningRate, tokensPerPass, computePasses }),
    },
    options,
  );
  return {
    steps,
    loss: meanLoss(reports.slice(-steps / epochs)),
    sequences: examples.length,
    skipped: sequences.length - examples.length,
    truncated: sequences.filter(({ lossMask }) => lossMask.lastIndexOf(1) >= maxSequenceTokens).length,
  };
}

/** Mean over all tokens of the steps. */
function meanLoss(reports: readonly StepReport[]): number {
  const tokens = reports.reduce((sum, report) => sum + report.tokens, 0);
  return reports.reduce((sum, report) => sum + report.loss * report.tokens, 0) / tokens;
}
