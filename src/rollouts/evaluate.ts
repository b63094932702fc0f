// Evaluation: one dialogue for each task of a split, temperature 0, plain prompts (docs/method.md §7).
import { OptimaError } from '../domain/errors.ts';
import { measureTeam, type TeamMetrics } from '../domain/metrics.ts';
import type { Trajectory } from '../domain/transcript.ts';
import { loadTasks } from '../scenario/tasks.ts';
import type { Split } from '../scenario/types.ts';
import { type DialoguePlan, holdDialogues } from './executor.ts';

export type EvaluationPlan = Omit<DialoguePlan, 'tasks' | 'samplesPerTask' | 'formats' | 'temperature'> & {
  readonly split: Split;
  /** Tasks, the first ones of the split. */
  readonly count: number;
};

export interface Evaluation {
  readonly metrics: TeamMetrics;
  readonly trajectories: readonly Trajectory[];
}

/**
 * Evaluates a team in which one model speaks for every role. Rejects as `holdDialogues` does, and with
 * `evaluation.empty` when every dialogue failed: there is no score then, not even 0.
 */
export async function evaluateTeam({ split, count, ...plan }: EvaluationPlan): Promise<Evaluation> {
  const { phase, scenario, rng } = plan;
  const tasks = await loadTasks(scenario, split, { from: 0, count }, rng);
  const trajectories = await holdDialogues({
    ...plan,
    tasks,
    samplesPerTask: 1,
    formats: [],
    temperature: 0,
  });
  if (trajectories.every(({ verdict }) => verdict === null)) {
    throw new OptimaError(
      'evaluation.empty',
      `${phase}: all ${trajectories.length} dialogues failed, the first because: ${trajectories[0]?.failure}`,
    );
  }
  return { metrics: measureTeam(trajectories, rng.split('bootstrap').split(phase)), trajectories };
}
