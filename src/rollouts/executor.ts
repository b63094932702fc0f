// The roll-out executor: cohorts of dialogues in, their events out. In process today; whoever consumes the events, a run
// that keeps them in its log for one, need not know where they come from.
import { concat, concatMap, type Observable, type OperatorFunction, of, tap } from 'rxjs';
import { type Cast, type CohortOptions, type Episode, everyRole, runCohort } from '../actors/index.ts';
import { longestTimerMs } from '../domain/clock.ts';
import { Forest } from '../domain/conversation-tree.ts';
import type { RunEvent, RunEventOf } from '../domain/events.ts';
import { childId, rootId } from '../domain/ids.ts';
import type { DialogueMessage } from '../domain/messages.ts';
import type { GenerativeModel } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';
import type { Trajectory } from '../domain/transcript.ts';
import type { NamedTask } from '../scenario/tasks.ts';
import type { FormatPrompt, Scenario } from '../scenario/types.ts';
import { inOrder } from './work-queue.ts';

/** What dialogues say, and after each cohort that it is complete. */
export type RolloutEvent = DialogueMessage | RunEventOf<'cohort.completed'>;

export interface RolloutPlan {
  readonly phase: string;
  readonly scenario: Scenario;
  /** One and the same cast, as often as cohorts can be held side by side. */
  readonly casts: readonly Cast[];
  /** Whom the scenario's metric may ask: one and the same, for as many cohorts. */
  readonly judges?: readonly GenerativeModel[];
  readonly recallReply?: CohortOptions['recallReply'];
  readonly cohorts: Iterable<readonly Episode[]>;
  /** Number of the first of them. Default 0. */
  readonly first?: number;
  readonly temperature: number;
  readonly maxMessageTokens: number;
  /** The run's generator. */
  readonly rng: Rng;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The events of all cohorts in their order, whichever is done first. Errors as `runCohort` does. A turn may take as long as
 * it takes: one that timed out on a slow or suspended machine would make the log depend on the clock.
 */
export function rollOut(plan: RolloutPlan): Observable<RolloutEvent> {
  const { phase, scenario, casts, judges = [], cohorts, first = 0, temperature, rng, signal } = plan;
  const sampling = { temperature, topP: 1, topK: 0, maxTokens: plan.maxMessageTokens };
  const { recallReply } = plan;
  const timeless = { turnTimeoutMs: longestTimerMs, recallReply };
  const options = { scenario, sampling, rng: rng.split('nodes'), signal, ...timeless };
  const lanes = casts.map((cast, lane) => ({ cast, judge: judges[lane % judges.length] }));
  return inOrder(lanes, cohorts, (lane, episodes, index) =>
    concat(
      runCohort(episodes, { ...options, ...lane }),
      of({ type: 'cohort.completed' as const, phase, cohort: first + index }),
    ),
  );
}

export interface EpisodesPlan {
  /** Names the trees, and the draws of the formats. */
  readonly phase: string;
  readonly tasks: readonly NamedTask[];
  readonly samplesPerTask: number;
  /** Drawn from uniformly for each dialogue; empty: every dialogue is plain. */
  readonly formats: readonly FormatPrompt[];
  readonly rng: Rng;
}

/** Fresh dialogues in the order tasks × samples: each a branch at the root of its task's tree. */
export function* episodesOf({
  phase,
  tasks,
  samplesPerTask,
  formats,
  rng,
}: EpisodesPlan): Generator<Episode> {
  for (const { id: taskId, task } of tasks) {
    const tree = rootId(phase, taskId);
    for (let sample = 0; sample < samplesPerTask; sample++) {
      const id = childId(tree, sample);
      const format = formats.length > 0 ? rng.split('formats').split(id).pick(formats) : null;
      yield { id, tree, taskId, task, format };
    }
  }
}

/** Models as casts: each speaks for every role, or is one for each role by its name. */
export function castsOf(
  scenario: Scenario,
  models: readonly (GenerativeModel | Readonly<Record<string, GenerativeModel>>)[],
): Cast[] {
  return models.map((model) =>
    isModel(model)
      ? everyRole(scenario, model)
      : Object.fromEntries(
          Object.entries(model).map(([role, own]) => [role, { model: own, provenance: 'sampled' as const }]),
        ),
  );
}

function isModel(
  model: GenerativeModel | Readonly<Record<string, GenerativeModel>>,
): model is GenerativeModel {
  return typeof model.generate === 'function';
}

/** The dialogues that events complete, as `Forest.take` folds them. */
export function foldDialogues(forest: Forest = new Forest()): OperatorFunction<RolloutEvent, Trajectory> {
  return concatMap((event) => forest.take(event));
}

/** Tells of each dialogue's end. */
export function tellingEnds<Event extends RunEvent>(onClosed: () => void) {
  return tap<Event>(({ type }) => {
    if (type === 'dialogue.closed') onClosed();
  });
}

/** The finished dialogues of a cohort, once it has ended; `forest` has what they go on from. */
export async function trajectoriesOf(
  messages: Observable<DialogueMessage>,
  forest: Forest = new Forest(),
): Promise<Trajectory[]> {
  await messages.forEach((message) => {
    forest.hear(message);
  });
  return forest.trajectories();
}
