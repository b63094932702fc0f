// Rank: computes the reward of every dialogue of an iteration, readability under the frozen base; a task at a time.
import type { PhaseOutputOf } from '../../domain/events.ts';
import { TeamFigures } from '../../domain/metrics.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import { rankOptionsOf, rankTrajectories } from '../../reading/ranking.ts';
import { trainedRoles } from '../../scenario/types.ts';
import { type ScoredTrajectory, scoreTurns } from '../readability.ts';
import { answersIn, countTokensOf, type PhaseContext } from './context.ts';

export async function rank(
  context: PhaseContext,
  phase: PlannedPhases['rank'],
): Promise<PhaseOutputOf<'rank'>> {
  const { run, recipe, scenario, base, shelf, progress, signal, rng } = context;
  const options = rankOptionsOf(recipe, scenario);
  const answers = await answersIn(context, phase.dialogues);
  const { dialogues } = run.outputOf({ name: phase.dialogues, kind: 'generate' })!;
  const figures = new TeamFigures(countTokensOf(context));
  const cases = { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 };
  let ranked = 0;
  let rewards = 0;
  let losses = 0;
  const rankTask = (samples: readonly ScoredTrajectory[]) => {
    const logprobs = new Map(samples.map(({ trajectory, turnLogprobs }) => [trajectory.id, turnLogprobs]));
    const ranking = rankTrajectories(
      samples.map(({ trajectory }) => trajectory),
      logprobs,
      { ...options, answer: answers.get(samples[0]!.trajectory.taskId)! },
    );
    for (const result of ranking) {
      run.record({ type: 'trajectory.ranked', ...result });
      for (const edgeCase of result.edgeCases) cases[edgeCase]++;
      if (result.reward === null || result.terms === null) continue;
      ranked++;
      rewards += result.reward;
      losses += result.terms.loss;
    }
  };

  progress.begin(phase.name, dialogues, 'dialogues');
  const scored = scoreTurns(await shelf.modelsOf(base.hash), run.dialoguesOf(phase.dialogues), {
    batchSize: recipe.concurrency,
    roles: trainedRoles(scenario),
    signal,
  });
  let task: ScoredTrajectory[] = [];
  await scored.forEach((sample) => {
    if (task.length > 0 && task[0]!.trajectory.taskId !== sample.trajectory.taskId) {
      rankTask(task);
      task = [];
    }
    task.push(sample);
    figures.add(sample.trajectory);
    progress.advance(figures.dialogues);
  });
  if (task.length > 0) rankTask(task);
  const meanReward = ranked === 0 ? 0 : rewards / ranked;
  progress.end(`mean reward ${meanReward.toFixed(3)}`);
  return {
    kind: 'rank',
    ranked,
    failed: dialogues - ranked,
    meanReward,
    meanLoss: ranked === 0 ? 0 : losses / ranked,
    metrics: figures.metrics(rng.split('bootstrap').split(phase.name)),
    edgeCases: cases,
  };
}
