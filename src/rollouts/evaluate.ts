// Evaluation: one dialogue for each task of a split, temperature 0, plain prompts (docs/method.md §7).
import { lastValueFrom, toArray } from 'rxjs';
import { chunk } from '../domain/chunk.ts';
import { OptimaError } from '../domain/errors.ts';
import { type CountTokens, TeamFigures, type TeamMetrics } from '../domain/metrics.ts';
import type { GenerativeModel } from '../domain/model.ts';
import { type Progress, silent } from '../domain/progress.ts';
import type { Rng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import { loadTasks } from '../scenario/tasks.ts';
import { type FormatPrompt, type Scenario, type Split, trainedRoles } from '../scenario/types.ts';
import { castsOf, episodesOf, foldDialogues, type RolloutEvent, rollOut, tellingEnds } from './executor.ts';

export interface EvaluationPlan {
  /** First part of the nodes' ids; names their random draws too. */
  readonly phase: string;
  readonly scenario: Scenario;
  /** Who speaks, for every role or by role: one and the same, as often as cohorts can be held side by side. */
  readonly models: readonly (GenerativeModel | Readonly<Record<string, GenerativeModel>>)[];
  /** The roles whose models it is about: what they refuse scores 0. Default: all but those that the scenario says are not trained. */
  readonly evaluated?: readonly string[];
  /** Whom the scenario's metric may ask: one and the same, for as many cohorts. */
  readonly judges?: readonly GenerativeModel[] | undefined;
  readonly split: Split;
  /** Tasks, the first ones of the split. */
  readonly count: number;
  /** Asked for in every dialogue; by default the prompts are plain. */
  readonly format?: FormatPrompt | null;
  readonly maxMessageTokens: number;
  /** Dialogues that run together. */
  readonly concurrency: number;
  readonly rng: Rng;
  /** For the figures of what the environment says, and of private notes. */
  readonly countTokens?: CountTokens;
  readonly progress?: Progress;
  readonly signal?: AbortSignal | undefined;
}

export interface Evaluation {
  readonly metrics: TeamMetrics;
  readonly trajectories: readonly Trajectory[];
}

/** Evaluates a team. Rejects as `rollOut` errors, and as `measureEvaluation` throws. */
export async function evaluateTeam(plan: EvaluationPlan): Promise<Evaluation> {
  const { phase, scenario, split, count, format = null, rng, progress = silent } = plan;
  const tasks = await loadTasks(scenario, split, { from: 0, count }, rng);
  const formats = format === null ? [] : [format];
  const episodes = episodesOf({ phase, tasks, samplesPerTask: 1, formats, rng });
  progress.begin(phase, count, 'dialogues');
  const events = rollOut({
    phase,
    scenario,
    casts: castsOf(scenario, plan.models),
    judges: plan.judges ?? [],
    cohorts: chunk(episodes, plan.concurrency),
    temperature: 0,
    maxMessageTokens: plan.maxMessageTokens,
    rng,
    signal: plan.signal,
  });
  let closed = 0;
  const told = tellingEnds<RolloutEvent>(() => progress.advance(++closed));
  const trajectories = await lastValueFrom(events.pipe(told, foldDialogues(), toArray()));
  const figures = new TeamFigures(plan.countTokens, plan.evaluated ?? trainedRoles(scenario));
  for (const trajectory of trajectories) figures.add(trajectory);
  progress.end(figures.summary());
  return { metrics: measureEvaluation(phase, figures, rng), trajectories };
}

/** The metrics of an evaluation; throws `evaluation.empty` when no dialogue has a score, not even 0 for what was refused. */
export function measureEvaluation(phase: string, figures: TeamFigures, rng: Rng): TeamMetrics {
  const { dialogues, scored, firstFailure } = figures;
  if (scored > 0) return figures.metrics(rng.split('bootstrap').split(phase));
  throw new OptimaError(
    'evaluation.empty',
    `${phase}: all ${dialogues} dialogues failed, the first because: ${firstFailure}`,
  );
}
