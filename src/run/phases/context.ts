// What every phase of a run is given, and what all of them ask of the run.
import type { PhaseOutputOf } from '../../domain/events.ts';
import type { PolicyHash, TeamPolicy } from '../../domain/ids.ts';
import type { Progress } from '../../domain/progress.ts';
import type { Rng } from '../../domain/rng.ts';
import type { PlannedPhase } from '../../machines/index.ts';
import type { LlamaPolicy } from '../../models/llama/index.ts';
import type { Recipe } from '../../recipe/schema.ts';
import type { Scenario } from '../../scenario/types.ts';
import type { RunFolder } from '../../store/run-folder.ts';
import type { PolicyHost } from '../../workers/index.ts';
import { choosePolicy, foldIterations } from '../figures.ts';
import type { IterationPlan } from '../plan.ts';
import type { PolicyShelf } from '../policy-shelf.ts';

export interface TrainingRun {
  readonly scenario: Scenario;
  readonly recipe: Recipe;
  /** The frozen base; disposed with the run. */
  readonly base: LlamaPolicy;
  /** A new run's folder, or one to continue. */
  readonly run: RunFolder;
  /** Where policies compute; by default on this thread. The caller stops it. */
  readonly workers?: PolicyHost | undefined;
  readonly progress: Progress;
  /** Ends the run after the step under way; it can be resumed. */
  readonly signal?: AbortSignal | undefined;
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

/** One policy in every role. */
export const sharedBy = ({ roles }: Scenario, hash: PolicyHash): TeamPolicy =>
  Object.fromEntries(Object.keys(roles).map((role) => [role, hash]));

/** Tokens of a text, under the tokenizer of the run. */
export const countTokensOf =
  ({ base }: RunContext) =>
  (text: string): number =>
    base.tokenizer.encode(text).length;

export const baseOf = ({ scenario, base }: RunContext): TeamPolicy => sharedBy(scenario, base.hash);

/** What the last training before a phase of the plan made; the base where there was none. */
export function latestPolicy(context: RunContext, { name }: PlannedPhase): TeamPolicy {
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
export const keptPolicy = ({ run, iterations, recipe }: RunContext): TeamPolicy =>
  choosePolicy(foldIterations(run, iterations), recipe.keep);
