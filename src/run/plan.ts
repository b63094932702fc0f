// From a recipe to a run's plan: the phases in their order, each with all that it goes by.
import type { PhaseKind } from '../domain/events.ts';
import type { PlannedPhase, PlannedPhases } from '../machines/index.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { Scenario } from '../scenario/types.ts';

export type IterationKind = 'init' | 'isft';

/** The phases of one iteration by their kind; `evaluate` where the recipe validates. */
export interface IterationPlan extends Omit<PlannedPhases, 'evaluate'> {
  readonly index: number;
  readonly kind: IterationKind;
  readonly evaluate: PlannedPhases['evaluate'] | null;
}

/** What differs between initialization and the iterations after it. */
interface IterationSettings
  extends Pick<PlannedPhases['generate'], 'tasks' | 'samplesPerTask' | 'temperature' | 'formats'>,
    Pick<PlannedPhases['select'], 'threshold' | 'thresholdKey' | 'keepFraction'>,
    Pick<PlannedPhases['train'], 'startFrom'> {}

/** The iterations of a run: initialization, then those of its recipe. */
export function planIterations(recipe: Recipe, scenario: Pick<Scenario, 'kind'>): IterationPlan[] {
  const { initialization, isft, iterations } = recipe;
  const first: IterationSettings = {
    ...initialization,
    tasks: { from: 0, count: initialization.tasks },
    threshold: initialization.thetaInit,
    thresholdKey: 'initialization.thetaInit',
    startFrom: 'base',
  };
  // Little data overfits: debates start from the base each time (docs/method.md §4).
  const startFrom = isft.startFrom ?? (scenario.kind === 'debate' ? 'base' : 'previous');
  const later = (index: number): IterationSettings => ({
    ...isft,
    tasks: { from: initialization.tasks + (index - 1) * isft.tasks, count: isft.tasks },
    formats: false,
    threshold: isft.thetaSft,
    thresholdKey: 'isft.thetaSft',
    startFrom: startFrom === 'base' ? 'base' : 'latest',
  });
  const { validationTasks } = recipe.evaluation;
  return Array.from({ length: iterations + 1 }, (_, index) =>
    index === 0
      ? planIteration(0, 'init', first, validationTasks)
      : planIteration(index, 'isft', later(index), validationTasks),
  );
}

function planIteration(
  index: number,
  kind: IterationKind,
  {
    tasks,
    samplesPerTask,
    temperature,
    formats,
    threshold,
    thresholdKey,
    keepFraction,
    startFrom,
  }: IterationSettings,
  validationTasks: number,
): IterationPlan {
  const own = <Kind extends PhaseKind>(phase: Kind) => ({
    kind: phase,
    name: `${kind}-${index}/${phase}`,
    iteration: index,
  });
  const generate = { ...own('generate'), tasks, samplesPerTask, temperature, formats };
  const rank = { ...own('rank'), dialogues: generate.name };
  const select = { ...own('select'), ranking: rank.name, threshold, thresholdKey, keepFraction };
  const train = { ...own('train'), dialogues: generate.name, selection: select.name, startFrom };
  const evaluate = {
    ...own('evaluate'),
    policy: 'latest',
    split: 'validation',
    tasks: validationTasks,
  } as const;
  return { index, kind, generate, rank, select, train, evaluate: validationTasks === 0 ? null : evaluate };
}

/** The whole run: the base is measured, the iterations train, and what is kept is measured on the same test tasks. */
export function planRun(recipe: Recipe, scenario: Pick<Scenario, 'kind'>): readonly PlannedPhase[] {
  const measured = {
    kind: 'evaluate',
    iteration: null,
    split: 'test',
    tasks: recipe.evaluation.tasks,
  } as const;
  const phases: PlannedPhase[] = [{ ...measured, name: 'base', policy: 'base' }];
  for (const { generate, rank, select, train, evaluate } of planIterations(recipe, scenario)) {
    phases.push(generate, rank, select, train);
    if (evaluate !== null) phases.push(evaluate);
  }
  return [...phases, { ...measured, name: 'trained', policy: 'kept' }];
}
