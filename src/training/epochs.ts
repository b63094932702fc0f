// Training on a set of examples: so many times each, in shuffled batches, under a cosine schedule.
import type { Rng } from '../domain/rng.ts';
import type { AdamWConfig } from './adamw.ts';
import { shuffledBatches } from './batches.ts';
import { runTraining, type TrainingOptions } from './loop.ts';
import type { Objective } from './objective.ts';
import type { DifferentiablePolicy } from './policy.ts';
import { warmupCosine } from './schedule.ts';
import { type StepOptions, takeStep } from './step.ts';

/** What every training in epochs can be set to. */
export interface EpochsConfig extends AdamWConfig {
  /** Peak of the schedule. */
  readonly learningRate: number;
  /** Passes over the examples. */
  readonly epochs: number;
  /** Examples for each optimizer step. */
  readonly batchSize: number;
  /** Share of the steps over which the learning rate rises. */
  readonly warmupFraction: number;
  /** Where the cosine ends, as a share of `learningRate`. */
  readonly floorFraction: number;
  /** Padded tokens of one forward pass. Bounds memory; a step is the sum of its passes. */
  readonly tokensPerPass: number;
}

/** As the loop's, and where passes are computed. */
export interface EpochsOptions<Example>
  extends TrainingOptions,
    Pick<StepOptions<Example>, 'computePasses'> {}

/** What came of a training. */
export interface EpochsResult {
  readonly steps: number;
  /** Mean loss of the last epoch, each term counted once. */
  readonly loss: number;
}

/**
 * Trains the policy's weights in place and refreshes its hash. The order of examples comes from `rng`; there must be
 * one or more. Rejects as `runTraining` does.
 */
export async function trainEpochs<Example>(
  policy: DifferentiablePolicy,
  objective: Objective<Example>,
  examples: readonly Example[],
  config: EpochsConfig,
  rng: Rng,
  { computePasses, ...options }: EpochsOptions<Example> = {},
): Promise<EpochsResult> {
  const { epochs, batchSize, learningRate: peak, tokensPerPass } = config;
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
        takeStep(policy, objective, optimizer, batches[index]!, {
          learningRate,
          tokensPerPass,
          computePasses,
        }),
    },
    options,
  );
  const lastEpoch = reports.slice(-steps / epochs);
  const weighed = lastEpoch.map(({ step, loss }) => ({ loss, terms: objective.countTerms(batches[step]!) }));
  const terms = weighed.reduce((sum, { terms }) => sum + terms, 0);
  return { steps, loss: weighed.reduce((sum, { loss, terms }) => sum + loss * terms, 0) / terms };
}
