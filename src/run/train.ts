// A training run from end to end: evaluation of the base → initialization and iSFT iterations, which the
// trainer machine leads through generate → rank → select → train (→ evaluate) → evaluation of the result.
import { createActor, fromPromise, type PromiseActorLogic, toPromise } from 'xstate';
import type { PolicyHash } from '../domain/ids.ts';
import type { TeamMetrics } from '../domain/metrics.ts';
import type { Trajectory } from '../domain/transcript.ts';
import {
  type CompletedPhase,
  type EvaluateOutput,
  type IterationPlan,
  type PhaseInput,
  phaseNames,
  type RankOutput,
  trainerMachine,
} from '../machines/index.ts';
import { inProcessHost } from '../workers/index.ts';
import { Phases, type TrainingRun } from './phases.ts';
import { choosePolicy, figuresOf, foldIterations, type IterationFigures, planIterations } from './plan.ts';
import { PolicyShelf } from './policy-shelf.ts';

export type { TrainingRun } from './phases.ts';

export interface TrainingResult {
  /** On the same test tasks, before and after. */
  readonly base: TeamMetrics;
  readonly trained: TeamMetrics;
  readonly iterations: readonly IterationFigures[];
  readonly policy: PolicyHash;
  /** A few of those tasks' dialogues. */
  readonly samples: readonly { readonly before: Trajectory; readonly after: Trajectory }[];
}

const sampleCount = 3;
/** The longest that a timer of Node can wait, 24 days: a phase may take what it takes. */
const phaseTimeoutMs = 2 ** 31 - 1;

/**
 * Carries out a run, or what is left of it. Rejects with `interrupted` on abort, `selection.empty` when the first
 * iteration finds nothing to train on (a later one then ends the iterations early), `training.diverged`,
 * `run.diverged`, `io.write`, and with what the model throws. What was completed before stays completed.
 */
export async function trainTeam(training: TrainingRun): Promise<TrainingResult> {
  const { recipe, run, base, workers, scenario, signal } = training;
  const host = workers ?? inProcessHost([base]);
  try {
    if (run.log.position === 0) {
      const { seed } = recipe;
      run.log.append({
        type: 'run.started',
        scenario: scenario.name,
        seed,
        base: base.hash,
        recipe: { ...recipe },
      });
    }
    const phases = new Phases(training, new PolicyShelf(base, run, host));
    const testTasks = recipe.evaluation.tasks;
    const before = await phases.evaluate('base', base.hash, 'test', testTasks, signal);
    await iterate(training, phases);
    const iterations = foldIterations(run.phases, recipe);
    const policy = choosePolicy(iterations, recipe.keep);
    const after = await phases.evaluate('trained', policy, 'test', testTasks, signal);
    run.log.append({ type: 'run.completed', policy });
    run.log.sync();
    return {
      base: before.metrics,
      trained: after.metrics,
      iterations,
      policy,
      samples: samplesOf(phases),
    };
  } finally {
    if (workers === undefined) await host.stop();
    base.dispose();
  }
}

/** Provides the trainer machine with the phases and waits for its end. */
async function iterate({ run, recipe, signal }: TrainingRun, phases: Phases): Promise<void> {
  const provide = <Output>(
    carryOut: (iteration: IterationPlan, signal: AbortSignal) => Promise<Output>,
  ): PromiseActorLogic<Output, PhaseInput> =>
    fromPromise(({ input, signal: stopped }) =>
      carryOut(input.iteration, signal === undefined ? stopped : AbortSignal.any([stopped, signal])),
    );
  const machine = trainerMachine.provide({
    actors: {
      generate: provide((iteration, stop) => phases.generate(iteration, stop)),
      rank: provide<RankOutput>((iteration, stop) => phases.rank(iteration, stop)),
      select: provide((iteration) => phases.select(iteration)),
      train: provide((iteration, stop) => phases.train(iteration, stop)),
      evaluate: provide<EvaluateOutput>((iteration, stop) => phases.validate(iteration, stop)),
    },
  });
  const iterations = planIterations(recipe);
  const completed = iterations.flatMap((iteration) =>
    phaseNames.flatMap((phase) => {
      const output = figuresOf(run.phases, iteration, phase);
      return output === null ? [] : [{ iteration: iteration.index, phase, output } as CompletedPhase];
    }),
  );
  const validate = recipe.evaluation.validationTasks > 0;
  const trainer = createActor(machine, { input: { iterations, completed, validate, phaseTimeoutMs } });
  const ended = toPromise(trainer);
  trainer.start();
  const { status, error } = await ended;
  if (status !== 'finished') throw error;
}

function samplesOf(phases: Phases): TrainingResult['samples'] {
  const after = new Map(phases.dialoguesOf('trained').map((dialogue) => [dialogue.taskId, dialogue]));
  return phases
    .dialoguesOf('base')
    .filter(({ taskId }) => after.has(taskId))
    .slice(0, sampleCount)
    .map((before) => ({ before, after: after.get(before.taskId)! }));
}
