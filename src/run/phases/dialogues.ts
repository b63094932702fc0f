// Holds the dialogues of a phase and keeps them in the run's log. Cohorts that an earlier process completed come from the
// log, with no model call.
import { setImmediate as nextTick } from 'node:timers/promises';
import { tap } from 'rxjs';
import { chunk } from '../../domain/chunk.ts';
import type { TeamPolicy } from '../../domain/ids.ts';
import { TeamFigures } from '../../domain/metrics.ts';
import { castsOf, episodesOf, foldDialogues, reported, rollOut } from '../../rollouts/executor.ts';
import type { NamedTask } from '../../scenario/tasks.ts';
import type { FormatPrompt } from '../../scenario/types.ts';
import type { PhaseContext } from './context.ts';

export interface DialoguesPlan {
  readonly phase: string;
  readonly policy: TeamPolicy;
  readonly tasks: readonly NamedTask[];
  readonly samplesPerTask: number;
  /** Drawn from uniformly for each dialogue; empty: every dialogue is plain. */
  readonly formats: readonly FormatPrompt[];
  readonly temperature: number;
}

/** Resolves with the figures of the dialogues when all are in the log. Rejects as `rollOut` errors. */
export async function holdDialogues(context: PhaseContext, plan: DialoguesPlan): Promise<TeamFigures> {
  const { run, recipe, scenario, shelf, rng, progress, signal } = context;
  const { phase, temperature } = plan;
  const total = plan.tasks.length * plan.samplesPerTask;
  const cohorts = chunk(episodesOf({ ...plan, rng }), recipe.concurrency);
  const figures = new TeamFigures();
  const forest = run.forest(context.from);
  progress.begin(phase, total, 'dialogues');
  let first = 0;
  for (let past = run.replayCohort(phase, first); past !== null; past = run.replayCohort(phase, first)) {
    for (const event of past) for (const dialogue of forest.take(event)) figures.add(dialogue);
    cohorts.next();
    first++;
    // Room for an interruption, which ends the first cohort that is held: there may be thousands of these.
    await nextTick();
    if (signal?.aborted) break;
  }
  progress.advance(figures.dialogues);
  const events = rollOut({
    phase,
    scenario,
    casts: castsOf(scenario, await shelf.speakersOf(plan.policy)),
    cohorts,
    first,
    temperature,
    maxMessageTokens: recipe.maxMessageTokens,
    rng,
    signal,
  });
  await events
    .pipe(
      tap((event) => run.record(event)),
      reported(progress, figures.dialogues),
      foldDialogues(forest),
    )
    .forEach((dialogue) => {
      figures.add(dialogue);
    });
  progress.end(figures.summary());
  return figures;
}
