// Holds the dialogues of a phase and keeps them in the run's log.
import { chunk } from '../../domain/chunk.ts';
import type { TeamPolicy } from '../../domain/ids.ts';
import { TeamFigures } from '../../domain/metrics.ts';
import { castsOf, episodesOf, rollOut, tellingEnds } from '../../rollouts/executor.ts';
import type { NamedTask } from '../../scenario/tasks.ts';
import { type FormatPrompt, messageCap } from '../../scenario/types.ts';
import { judgesOf, recallFrom, recordCohorts } from './cohorts.ts';
import { countTokensOf, type PhaseContext } from './context.ts';

export interface DialoguesPlan {
  readonly phase: string;
  readonly policy: TeamPolicy;
  readonly tasks: readonly NamedTask[];
  readonly samplesPerTask: number;
  /** Drawn from uniformly for each dialogue; empty: every dialogue is plain. */
  readonly formats: readonly FormatPrompt[];
  readonly temperature: number;
  /** In an evaluation the roles whose policies it is about. */
  readonly evaluated?: readonly string[];
}

/** Resolves with the figures of the dialogues, and with the tokens that were sampled, when all are in the log. Rejects as `rollOut` errors. */
export async function holdDialogues(
  context: PhaseContext,
  plan: DialoguesPlan,
): Promise<{ readonly figures: TeamFigures; readonly sampledTokens: number }> {
  const { run, recipe, scenario, shelf, rng, progress, signal } = context;
  const { phase, temperature } = plan;
  const figures = new TeamFigures(countTokensOf(context), plan.evaluated);
  const forest = run.forest(context.from);
  const sampledTokens = await recordCohorts(context, {
    phase,
    cohorts: chunk(episodesOf({ ...plan, rng }), recipe.concurrency),
    total: plan.tasks.length * plan.samplesPerTask,
    hold: async (cohorts, first, onClosed) =>
      rollOut({
        phase,
        scenario,
        casts: castsOf(scenario, await shelf.speakersOf(plan.policy)),
        judges: await judgesOf(context),
        recallReply: recallFrom(run),
        cohorts,
        first,
        temperature,
        maxMessageTokens: messageCap(scenario, recipe.maxMessageTokens),
        rng,
        signal,
      }).pipe(tellingEnds(onClosed)),
    take: (event) => {
      for (const dialogue of forest.take(event)) figures.add(dialogue);
    },
  });
  progress.end(figures.summary());
  return { figures, sampledTokens };
}
