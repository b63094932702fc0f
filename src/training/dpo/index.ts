// Preference training of a policy on pairs of turns (docs/method.md §5).
import { OptimaError } from '../../domain/errors.ts';
import type { Rng } from '../../domain/rng.ts';
import { groupedBatches } from '../batches.ts';
import { type EpochsOptions, type EpochsResult, trainEpochs } from '../epochs.ts';
import type { StepReport } from '../loop.ts';
import type { DifferentiablePolicy } from '../policy.ts';
import type { DpoConfig } from './config.ts';
import { guardTraining } from './guards.ts';
import { dpoObjective, lengthOf, type PreferenceExample } from './objective.ts';

export { type DpoConfig, defaultDpoConfig } from './config.ts';
export type { PreferenceLoss } from './loss.ts';
export { dpoObjective, type PreferenceExample } from './objective.ts';

export interface DpoResult extends EpochsResult {
  /** Pairs trained on. */
  readonly pairs: number;
  /** Pairs left out because a view is longer than `maxSequenceTokens`. */
  readonly tooLong: number;
  /** Pairs left out because their turns are the same tokens. */
  readonly identical: number;
  /** What went wrong in ways that a loss does not show, in words. */
  readonly warnings: readonly string[];
}

/** As `trainEpochs`; rejects with `selection.empty`, too, when no pair is left, which ends a run. */
export async function trainDpo(
  policy: DifferentiablePolicy,
  examples: readonly PreferenceExample[],
  config: DpoConfig,
  rng: Rng,
  { onStep, ...options }: EpochsOptions<PreferenceExample> = {},
): Promise<DpoResult> {
  const unlike = examples.filter(({ chosenIds, rejectedIds }) => `${chosenIds}` !== `${rejectedIds}`);
  const fitting = unlike.filter((example) => lengthOf(example) <= config.maxSequenceTokens);
  if (fitting.length === 0) {
    throw new OptimaError('selection.empty', `None of ${examples.length} pairs can be trained on.`);
  }
  const reports: StepReport[] = [];
  const result = await trainEpochs(policy, dpoObjective(config), fitting, config, rng, {
    ...options,
    deal: (epoch) => groupedBatches(fitting, ({ group }) => group, config.batchSize, epoch),
    onStep: (report) => {
      reports.push(report);
      return onStep?.(report);
    },
  });
  return {
    ...result,
    pairs: fitting.length,
    tooLong: unlike.length - fitting.length,
    identical: examples.length - unlike.length,
    warnings: guardTraining(reports, fitting.length, config.beta),
  };
}
