// Training from scratch on an endless stream of fresh sequences: how the base checkpoint is made.
import { OptimaError } from '../domain/errors.ts';
import type { TrainingSequence } from '../domain/model.ts';
import type { AdamWConfig } from './adamw.ts';
import { trimSequence } from './batches.ts';
import { runTraining, type StepReport, type TrainingOptions } from './loop.ts';
import type { DifferentiablePolicy } from './policy.ts';
import { warmupCosine } from './schedule.ts';
import { sftObjective } from './sft/objective.ts';
import { type StepOptions, takeStep } from './step.ts';

export interface WarmupConfig extends AdamWConfig {
  readonly steps: number;
  /** Peak of the schedule. */
  readonly learningRate: number;
  /** Steps over which the learning rate rises. */
  readonly warmupSteps: number;
  /** Where the cosine ends, as a share of `learningRate`. */
  readonly floorFraction: number;
  /** Longer sequences lose their end, in tokens. */
  readonly maxSequenceTokens: number;
  /** Padded tokens of one forward pass. Bounds memory; a step is the sum of its passes. */
  readonly tokensPerPass: number;
}

export const defaultWarmupConfig: WarmupConfig = {
  steps: 3000,
  // From scratch a model of about a million parameters stands, and needs, more than the fine-tuning rate.
  learningRate: 2e-3,
  warmupSteps: 100,
  floorFraction: 0.1,
  weightDecay: 0.1,
  clipNorm: 1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  maxSequenceTokens: 1024,
  tokensPerPass: 4096,
};

/** As the loop's, and where passes are computed. */
export interface WarmupTrainingOptions
  extends TrainingOptions,
    Pick<StepOptions<TrainingSequence>, 'computePasses'> {
  /** Of chance in the steps. */
  readonly seed?: string;
}

/**
 * Trains on `stream(0)`, `stream(1)` …, one batch for each step, each called once and in order. Rejects as
 * `runTraining` does, and with `selection.empty` when a batch holds no token that counts.
 */
export function warmup(
  policy: DifferentiablePolicy,
  stream: (batchIndex: number) => readonly TrainingSequence[],
  config: WarmupConfig,
  { computePasses, seed = 'warmup', ...options }: WarmupTrainingOptions = {},
): Promise<readonly StepReport[]> {
  const { steps, learningRate: peak, floorFraction, warmupSteps, maxSequenceTokens, tokensPerPass } = config;
  return runTraining(
    policy,
    {
      steps,
      schedule: warmupCosine({ peak, floor: peak * floorFraction, warmupSteps, steps }),
      optimizer: config,
      async takeStep(optimizer, index, learningRate) {
        const batch = stream(index)
          .map((sequence) => trimSequence(sequence, maxSequenceTokens))
          .filter((sequence) => sequence !== null);
        if (batch.length === 0) {
          throw new OptimaError('selection.empty', `Warm-up batch ${index} has no token to train on.`);
        }
        return takeStep(policy, sftObjective, optimizer, batch, {
          learningRate,
          tokensPerPass,
          seed: `${seed}/${index}`,
          computePasses,
        });
      },
    },
    options,
  );
}
