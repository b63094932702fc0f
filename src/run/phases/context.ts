// What every phase of a run is given, and what all of them ask of the run.
import type { PhaseOutputOf } from '../../domain/events.ts';
import type { PolicyHash, TaskId, TeamPolicy } from '../../domain/ids.ts';
import type { Progress } from '../../domain/progress.ts';
import type { Rng } from '../../domain/rng.ts';
import type { PlannedPhase, PlannedPhases } from '../../machines/index.ts';
import type { LlamaPolicy } from '../../models/llama/index.ts';
import type { Recipe } from '../../recipe/schema.ts';
import { Course } from '../../scenario/course.ts';
import { loadTasks, type NamedTask } from '../../scenario/tasks.ts';
import { type AnswerParser, type Scenario, trainedRoles } from '../../scenario/types.ts';
import type { RunFolder } from '../../store/run-folder.ts';
import type { PolicyHost } from '../../workers/index.ts';
import { choosePolicy, foldIterations, type Outputs, swapPolicies } from '../figures.ts';
import type { FrozenModel } from '../frozen.ts';
import type { IterationPlan } from '../plan.ts';
import type { PolicyShelf } from '../policy-shelf.ts';

export interface TrainingRun {
  readonly scenario: Scenario;
  readonly recipe: Recipe;
  /** The frozen base; disposed with the run. */
  readonly base: LlamaPolicy;
  /** A new run's folder, or one to continue. */
  readonly run: RunFolder;
  /** Who plays the roles that are not trained, where it is not the base. */
  readonly partners?: Readonly<Record<string, FrozenModel>> | undefined;
  /** Whom the scenario's metric may ask. */
  readonly judge?: FrozenModel | undefined;
  /** Where policies compute; by default on this thread. The caller stops it. */
  readonly workers?: PolicyHost | undefined;
  /** Whether trainings by preference take the pairs of forks that were kept. */
  readonly withForks?: boolean | undefined;
  readonly progress: Progress;
  /** Ends the run after the step under way; it can be resumed. */
  readonly signal?: AbortSignal | undefined;
}

/** What says who speaks in which phase. */
export interface TeamContext {
  readonly scenario: Scenario;
  readonly recipe: Recipe;
  readonly run: Outputs;
  readonly plan: readonly PlannedPhase[];
  readonly iterations: readonly IterationPlan[];
  readonly base: { readonly hash: PolicyHash };
  readonly partners?: Readonly<Record<string, { readonly hash: PolicyHash }>> | undefined;
}

/** What a run has while it is carried out. */
export interface RunContext extends Omit<TrainingRun, 'workers'> {
  readonly plan: readonly PlannedPhase[];
  readonly iterations: readonly IterationPlan[];
  readonly shelf: PolicyShelf;
  /** The run's generator. */
  readonly rng: Rng;
}

export interface PhaseContext extends RunContext {
  /** Number of the phase's first event. */
  readonly from: number;
}

/** One policy in every role that is trained; the others have their partner, or the base. */
export const sharedBy = ({ scenario, base, partners = {} }: TeamContext, hash: PolicyHash): TeamPolicy =>
  Object.fromEntries(
    Object.entries(scenario.roles).map(([role, { trained }]) => [
      role,
      trained === false ? (partners[role] ?? base).hash : hash,
    ]),
  );

/** Tokens of a text, under the tokenizer of the run. */
export const countTokensOf =
  ({ base }: RunContext) =>
  (text: string): number =>
    base.tokenizer.encode(text).length;

export const baseOf = (context: TeamContext): TeamPolicy => sharedBy(context, context.base.hash);

/** What the verdicts of a phase on training tasks read answers with, by the task. */
export async function answersIn(
  { scenario, plan, rng }: Pick<RunContext, 'scenario' | 'plan' | 'rng'>,
  name: string,
): Promise<ReadonlyMap<TaskId, AnswerParser>> {
  const phase = plan.find((phase) => phase.name === name);
  if (phase?.kind !== 'generate' && phase?.kind !== 'search') throw new Error(`No phase ${name} on tasks.`);
  return answersOf(scenario, await loadTasks(scenario, 'train', phase.tasks, rng));
}

export const answersOf = (
  scenario: Scenario,
  tasks: readonly NamedTask[],
): ReadonlyMap<TaskId, AnswerParser> =>
  new Map(tasks.map(({ id, task }) => [id, new Course(scenario, task).answer]));

/** What the last training before a phase of the plan made; the base where there was none. */
export function latestPolicy(context: TeamContext, { name }: PlannedPhase): TeamPolicy {
  const { plan, run } = context;
  const before = plan.slice(
    0,
    plan.findIndex((phase) => phase.name === name),
  );
  const trained = before
    .filter((phase) => phase.kind === 'train')
    .map((phase): PhaseOutputOf<'train'> | null => run.outputOf(phase))
    .findLast((output) => output !== null);
  return trained?.policy ?? baseOf(context);
}

/** The policy that the run ends with, once its iterations are over. */
export const keptPolicy = ({ run, iterations, recipe }: TeamContext): TeamPolicy =>
  choosePolicy(foldIterations(run, iterations), recipe.keep);

/** Who speaks in a phase that holds dialogues. */
export function policyIn(
  context: TeamContext,
  phase: PlannedPhases['generate' | 'search' | 'evaluate'],
): TeamPolicy {
  if (phase.kind !== 'evaluate') return latestPolicy(context, phase);
  return {
    base: () => baseOf(context),
    latest: () => latestPolicy(context, phase),
    kept: () => keptPolicy(context),
    swapped: () => swapPolicies(keptPolicy(context), trainedRoles(context.scenario)),
  }[phase.policy]();
}
