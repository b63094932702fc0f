// The training loop every algorithm shares: one optimizer step after another, with room between them for
// timers, progress and cancellation.
import { setImmediate as nextTick } from 'node:timers/promises';
import { OptimaError } from '../domain/errors.ts';
import { tf } from '../tensor/index.ts';
import { type AdamW, type AdamWConfig, createAdamW } from './adamw.ts';
import type { Figures } from './objective.ts';
import type { DifferentiablePolicy } from './policy.ts';
import type { Schedule } from './schedule.ts';

/** What one optimizer step did. */
export interface StepResult {
  /** Mean loss before the step. */
  readonly loss: number;
  /** Norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** Tokens that counted for the loss. */
  readonly tokens: number;
  /** Of the batch, before the step. */
  readonly figures: Figures;
}

export interface StepReport extends StepResult {
  /** From 0. */
  readonly step: number;
  /** Of the whole run. */
  readonly steps: number;
  readonly learningRate: number;
}

export interface TrainingOptions {
  /** Stops the run after the step under way. */
  readonly signal?: AbortSignal;
  /** Called before the first step with the number of them. */
  readonly onStart?: (steps: number) => void;
  /** Awaited after every step: here a caller measures, logs or saves. */
  readonly onStep?: (report: StepReport) => void | Promise<void>;
}

export interface TrainingPlan {
  readonly steps: number;
  readonly schedule: Schedule;
  readonly optimizer: AdamWConfig;
  /** Carries out step `index`: computes gradients and applies them. */
  takeStep(optimizer: AdamW, index: number, learningRate: number): Promise<StepResult>;
}

/**
 * Runs the plan and resolves with the report of every step. Rejects with `training.diverged` when a loss or
 * a gradient is not finite, and then the weights are what they were before the run; with `interrupted` when
 * `signal` aborts, and then they are what the last step left. The policy's hash fits its weights either way.
 */
export async function runTraining(
  policy: DifferentiablePolicy,
  plan: TrainingPlan,
  { signal, onStart, onStep }: TrainingOptions = {},
): Promise<readonly StepReport[]> {
  const { steps, schedule } = plan;
  const variables = [...policy.parameters.values()];
  const before = variables.map((variable) => tf.clone(variable));
  const reports: StepReport[] = [];
  let optimizer: AdamW | null = null;
  try {
    optimizer = createAdamW(policy.parameters, plan.optimizer);
    onStart?.(steps);
    for (let step = 0; step < steps; step++) {
      await nextTick();
      if (signal?.aborted) {
        throw new OptimaError('interrupted', `Training was interrupted after step ${step} of ${steps}.`);
      }
      const learningRate = schedule(step);
      const report = { step, steps, learningRate, ...(await plan.takeStep(optimizer, step, learningRate)) };
      if (!Number.isFinite(report.loss) || !Number.isFinite(report.gradNorm)) {
        variables.forEach((variable, i) => {
          variable.assign(before[i]!);
        });
        throw new OptimaError(
          'training.diverged',
          `Training diverged at step ${step} of ${steps}: loss ${report.loss}, gradient norm ${report.gradNorm}.`,
          { hint: 'Lower the learning rate, or clip gradients more.' },
        );
      }
      reports.push(report);
      await onStep?.(report);
    }
  } finally {
    optimizer?.dispose();
    tf.dispose(before);
    await policy.refreshHash();
  }
  return reports;
}
