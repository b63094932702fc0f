// Training on a set of examples: so many times each, in shuffled batches, under a cosine schedule.
import type { Rng } from '../domain/rng.ts';
import type { AdamWConfig } from './adamw.ts';
import { shuffledBatches } from './batches.ts';
import { runTraining, type StepReport, type TrainingOptions } from './loop.ts';
import type { Figures, Objective } from './objective.ts';
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
export interface EpochsOptions<Example> extends TrainingOptions, Pick<StepOptions<Example>, 'computePasses'> {
  /** Deals the examples of an epoch into batches; by default at random. */
  readonly deal?: (rng: Rng) => Example[][];
}

/** What came of a training. */
export interface EpochsResult {
  readonly steps: number;
  /** Mean loss of the last epoch, each term counted once. */
  readonly loss: number;
  /** And of what the objective measures beside it. */
  readonly figures: Figures;
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
  {
    computePasses,
    deal = (epoch) => shuffledBatches(examples, config.batchSize, epoch),
    ...options
  }: EpochsOptions<Example> = {},
): Promise<EpochsResult> {
  const { epochs, learningRate: peak, tokensPerPass } = config;
  const batches = Array.from({ length: epochs }, (_, epoch) => deal(rng.split(`epoch-${epoch}`))).flat();
  const steps = batches.length;
  const chance = rng.split('chance').seed32();
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
          seed: `${chance}/${index}`,
          computePasses,
        }),
    },
    options,
  );
  const lastEpoch = reports.slice(-steps / epochs);
  const weights = lastEpoch.map(({ step }) => objective.countTerms(batches[step]!));
  const terms = weights.reduce((sum, weight) => sum + weight, 0);
  const meanOf = (value: (report: StepReport) => number) =>
    lastEpoch.reduce((sum, report, index) => sum + value(report) * weights[index]!, 0) / terms;
  const names = Object.keys(lastEpoch[0]!.figures);
  return {
    steps,
    loss: meanOf(({ loss }) => loss),
    figures: Object.fromEntries(names.map((name) => [name, meanOf(({ figures }) => figures[name]!)])),
  };
}
