// From a recipe to a run's plan: the phases in their order, each with all that it goes by.
import type { PhaseKind } from '../domain/events.ts';
import type { PlannedPhase, PlannedPhases } from '../machines/index.ts';
import type { Choice } from '../reading/rerank/index.ts';
import type { IsftRecipe, PreferenceRecipe, Recipe } from '../recipe/schema.ts';
import { type Scenario, trainedRoles } from '../scenario/types.ts';

export type IterationKind = 'init' | 'isft' | 'idpo';

/** One iteration: what it generates or searches, what it chooses of it, and what it trains. */
export interface IterationPlan {
  readonly index: number;
  readonly kind: IterationKind;
  readonly phases: readonly PlannedPhase[];
}

type Kind = Pick<Scenario, 'kind'> & Partial<Pick<Scenario, 'roles'>>;

/** What names a phase of an iteration. */
type Own = <Phase extends PhaseKind>(
  phase: Phase,
  name?: string,
) => { readonly kind: Phase; readonly name: string; readonly iteration: number };

/** The iterations of a run: initialization, then those of its recipe. */
export function planIterations(recipe: Recipe, scenario: Kind): IterationPlan[] {
  const kinds = [
    'init' as const,
    ...Array.from({ length: recipe.iterations }, (_, index) => kindOf(recipe, index)),
  ];
  let from = 0;
  return kinds.map((kind, index) => {
    const own: Own = (phase, name = phase) => ({
      kind: phase,
      name: `${kind}-${index}/${name}`,
      iteration: index,
    });
    const [count, phases] = phasesOf(kind, recipe, scenario, own, from);
    from += count;
    const { validationTasks: tasks } = recipe.evaluation;
    const evaluate = { ...own('evaluate'), policy: 'latest', split: 'validation', tasks } as const;
    return { index, kind, phases: tasks === 0 ? phases : [...phases, evaluate] };
  });
}

function kindOf({ recipe }: Recipe, index: number): IterationKind {
  if (recipe === 'isft-dpo') return index % 2 === 0 ? 'isft' : 'idpo';
  return recipe;
}

/** The phases of an iteration up to its training, and how many tasks they take, of which `from` is the first. */
function phasesOf(
  kind: IterationKind,
  recipe: Recipe,
  scenario: Kind,
  own: Own,
  from: number,
): [tasks: number, phases: PlannedPhase[]] {
  if (kind === 'idpo') {
    const { search } = recipe as PreferenceRecipe;
    return [search.tasks, preferencePhases(search, own, from)];
  }
  if (kind === 'init') {
    const { initialization } = recipe;
    const [threshold, thresholdKey] = [initialization.thetaInit, 'initialization.thetaInit'];
    const phases = sftPhases({ ...initialization, threshold, thresholdKey, startFrom: 'base' }, own, from);
    return [initialization.tasks, phases];
  }
  const { isft } = recipe as IsftRecipe;
  // Little data overfits: debates start from the base each time (docs/method.md §4).
  const startFrom = isft.startFrom ?? (scenario.kind === 'debate' ? 'base' : 'previous');
  const settings: SftSettings = {
    ...isft,
    formats: false,
    threshold: isft.thetaSft,
    thresholdKey: 'isft.thetaSft',
    startFrom: startFrom === 'base' ? 'base' : 'latest',
  };
  return [isft.tasks, sftPhases(settings, own, from)];
}

/** What differs between initialization and the iterations after it. */
interface SftSettings
  extends Pick<PlannedPhases['generate'], 'samplesPerTask' | 'temperature' | 'formats'>,
    Pick<PlannedPhases['select'], 'threshold' | 'thresholdKey' | 'keepFraction'>,
    Pick<PlannedPhases['train'], 'startFrom'> {
  readonly tasks: number;
}

function sftPhases(settings: SftSettings, own: Own, from: number): PlannedPhase[] {
  const { tasks, samplesPerTask, temperature, formats, threshold, thresholdKey, keepFraction, startFrom } =
    settings;
  const generate = {
    ...own('generate'),
    tasks: { from, count: tasks },
    samplesPerTask,
    temperature,
    formats,
  };
  const rank = { ...own('rank'), dialogues: generate.name };
  const select = { ...own('select'), ranking: rank.name, threshold, thresholdKey, keepFraction };
  const on = { method: 'sft', dialogues: generate.name, selection: select.name } as const;
  return [generate, rank, select, { ...own('train'), startFrom, on }];
}

/** A pilot for the token normaliser, the search, its pairs, and DPO from the policy that was searched with. */
function preferencePhases(
  { tasks: count, pilotDialogues, temperature }: PreferenceRecipe['search'],
  own: Own,
  from: number,
): PlannedPhase[] {
  const pilotSamples = Math.ceil(pilotDialogues / count);
  const pilot = {
    ...own('generate', 'pilot'),
    tasks: { from, count: Math.ceil(pilotDialogues / pilotSamples) },
    samplesPerTask: pilotSamples,
    temperature,
    formats: false,
  };
  const search = { ...own('search'), tasks: { from, count }, pilot: pilot.name };
  const pair = { ...own('pair'), search: search.name };
  const on = { method: 'dpo', search: search.name, pairs: pair.name } as const;
  return [pilot, search, pair, { ...own('train'), startFrom: 'latest', on }];
}

/**
 * The whole run: the base is measured, the iterations train, and what is kept is measured on the same test tasks. Where each
 * role has its own weights, they are measured once more with the weights exchanged.
 */
export function planRun(recipe: Recipe, scenario: Kind): readonly PlannedPhase[] {
  const { kind, roles } = scenario;
  const canSwap =
    recipe.policies === 'per-role' && (roles === undefined || trainedRoles({ roles }).length > 1);
  const measured = {
    kind: 'evaluate',
    iteration: null,
    split: 'test',
    tasks: recipe.evaluation.tasks,
  } as const;
  return [
    { ...measured, name: 'base', policy: 'base' },
    ...planIterations(recipe, { kind }).flatMap(({ phases }) => phases),
    { ...measured, name: 'trained', policy: 'kept' },
    ...(canSwap ? [{ ...measured, name: 'swapped', policy: 'swapped' } as const] : []),
  ];
}

/** The phases of a plan that choose, each with where it chooses from. */
export function choicesIn(plan: readonly PlannedPhase[]): Choice[] {
  const called = <Kind extends PhaseKind>(kind: Kind, name: string) =>
    plan.find(
      (phase): phase is PlannedPhases[Kind] & PlannedPhase => phase.kind === kind && phase.name === name,
    )!;
  return plan.flatMap((phase): Choice[] => {
    if (phase.kind === 'select') return [{ ...phase, dialogues: called('rank', phase.ranking).dialogues }];
    return phase.kind === 'pair' ? [{ ...phase, pilot: called('search', phase.search).pilot }] : [];
  });
}

/** Dialogues that a phase holds. */
export function dialoguesOf(phase: PlannedPhase, recipe: Recipe): number {
  if (phase.kind === 'generate') return phase.tasks.count * phase.samplesPerTask;
  if (phase.kind === 'evaluate') return phase.tasks;
  if (phase.kind !== 'search' || !('search' in recipe)) return 0;
  return phase.tasks.count * recipe.search.expansions * recipe.search.rolloutsPerExpansion;
}
