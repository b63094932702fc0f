// A training run from end to end: the trainer machine leads the recipe's plan, and each phase is carried out here.
import { createActor, fromPromise, toPromise } from 'xstate';
import { cleaningUp } from '../domain/errors.ts';
import type { PhaseKind, PhaseOutput, PhaseOutputOf } from '../domain/events.ts';
import type { PolicyHash, TeamPolicy } from '../domain/ids.ts';
import type { TeamMetrics } from '../domain/metrics.ts';
import { createRng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import { type PhaseInput, type PlannedPhases, trainerMachine } from '../machines/index.ts';
import { withoutJudge } from '../scenario/score.ts';
import { trainedRoles, withoutTraining } from '../scenario/types.ts';
import type { RunFolder } from '../store/run-folder.ts';
import { inProcessHost } from '../workers/index.ts';
import { foldIterations, type IterationFigures, metricsRows } from './figures.ts';
import type { FrozenModel } from './frozen.ts';
import { keptPolicy, type RunContext, type TrainingRun } from './phases/context.ts';
import { phases } from './phases/index.ts';
import { planIterations, planRun } from './plan.ts';
import { PolicyShelf } from './policy-shelf.ts';

export type { TrainingRun } from './phases/context.ts';

export interface TrainingResult {
  /** On the same test tasks, before and after. */
  readonly base: TeamMetrics;
  readonly trained: TeamMetrics;
  /** And with the roles' weights exchanged; null where they share theirs. */
  readonly swapped: TeamMetrics | null;
  readonly iterations: readonly IterationFigures[];
  readonly policy: TeamPolicy;
  /** A few of those tasks' dialogues. */
  readonly samples: readonly { readonly before: Trajectory; readonly after: Trajectory }[];
}

const sampleCount = 3;

const hashesOf = (models: Readonly<Record<string, FrozenModel>>): TeamPolicy =>
  Object.fromEntries(Object.entries(models).map(([role, { hash }]) => [role, hash]));

/**
 * Carries out a run, or what is left of it. Rejects with `interrupted` on abort, `selection.empty` when the first
 * iteration finds nothing to train on (a later one then ends the iterations early), `training.diverged`,
 * `run.diverged`, `io.write`, and with what the model throws. What was completed before stays completed.
 */
export async function trainTeam({ workers, ...given }: TrainingRun): Promise<TrainingResult> {
  const { recipe, run, base, partners = {}, judge } = given;
  const scenario = withoutTraining(given.scenario, Object.keys(partners));
  const training = { ...given, scenario };
  const frozen = [...Object.values(partners), ...(judge === undefined ? [] : [judge])];
  const shelf = new PolicyShelf(base, run, workers ?? inProcessHost([base]), frozen);
  const train = async (): Promise<TrainingResult> => {
    // What an earlier process left, also where nothing else would read it again.
    await shelf.requireAll(trainedPolicies(run, trainedRoles(scenario)));
    if (scenario.judge !== undefined && judge === undefined) throw withoutJudge(scenario);
    if (run.log.position === 0) {
      const { seed } = recipe;
      run.record({
        type: 'run.started',
        scenario: scenario.name,
        seed,
        base: base.hash,
        recipe: { ...recipe },
        ...(given.partners && { partners: hashesOf(given.partners) }),
        ...(judge && { judge: judge.hash }),
      });
    }
    const context: RunContext = {
      ...training,
      plan: planRun(recipe, scenario),
      iterations: planIterations(recipe, scenario),
      shelf,
      rng: createRng(recipe.seed),
    };
    await carryOutPlan(context);
    const policy = keptPolicy(context);
    run.record({ type: 'run.completed', policy });
    run.nameFinal(policy);
    return {
      base: run.outputOf({ name: 'base', kind: 'evaluate' })!.metrics,
      trained: run.outputOf({ name: 'trained', kind: 'evaluate' })!.metrics,
      swapped: run.outputOf({ name: 'swapped', kind: 'evaluate' })?.metrics ?? null,
      iterations: foldIterations(run, context.iterations),
      policy,
      samples: samplesOf(run),
    };
  };
  return cleaningUp(train, () => shelf.dispose());
}

/** Provides the trainer machine with the phases and waits for its end. */
async function carryOutPlan(context: RunContext): Promise<void> {
  const { run, iterations, plan, progress, signal } = context;
  const known = metricsRows(run, iterations);
  let announced = known.length;
  // A process that was killed may not have come to write them.
  if (announced > 0) run.writeMetrics(known);
  const carryOut = async <Kind extends PhaseKind>(
    phase: PlannedPhases[Kind] & { readonly kind: Kind },
    stop: AbortSignal,
  ): Promise<PhaseOutputOf<Kind>> => {
    const output = await run.carryOut<Kind>(phase, (from) =>
      phases[phase.kind]({ ...context, signal: stop, from }, phase),
    );
    const rows = metricsRows(run, iterations);
    if (rows.length > announced) run.writeMetrics(rows);
    for (const row of rows.slice(announced)) progress.measured(row);
    announced = rows.length;
    return output;
  };
  const machine = trainerMachine.provide({
    actors: {
      carryOut: fromPromise<PhaseOutput, PhaseInput>(({ input, signal: stopped }) =>
        carryOut(input.phase, signal === undefined ? stopped : AbortSignal.any([stopped, signal])),
      ),
    },
  });
  const trainer = createActor(machine, { input: { plan } });
  const ended = toPromise(trainer);
  trainer.start();
  const { status, error } = await ended;
  if (status !== 'finished') throw error;
}

/** The policies that a run's trainings left. */
const trainedPolicies = (run: RunFolder, roles: readonly string[]): PolicyHash[] =>
  [...run.phases.values()].flatMap(({ output }) =>
    output.kind === 'train' ? roles.map((role) => output.policy[role]!) : [],
  );

function samplesOf(run: RunFolder): TrainingResult['samples'] {
  const samples: TrainingResult['samples'][number][] = [];
  const after = run.dialoguesOf('trained');
  // Both evaluations play the same tasks in the same order.
  for (const before of run.dialoguesOf('base')) {
    const next = after.next();
    if (next.done || samples.length === sampleCount) break;
    if (next.value.taskId === before.taskId) samples.push({ before, after: next.value });
  }
  return samples;
}
