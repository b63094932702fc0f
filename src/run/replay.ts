// Replay: the actors of a run's dialogues are driven anew from its log, and each message that they send is compared with the one
// that stands there. No model is called, and nothing of the scenario that may touch the world: what its environment said and its
// metric gave is taken from the log, too.
import { lastValueFrom, type Observable } from 'rxjs';
import {
  type Cast,
  type CohortOptions,
  type Episode,
  type Exploration,
  runCohort,
  runExplorer,
} from '../actors/index.ts';
import { chunk } from '../domain/chunk.ts';
import { longestTimerMs } from '../domain/clock.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEvent } from '../domain/events.ts';
import { type DialogueId, type PolicyHash, rootId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { GenerativeModel } from '../domain/model.ts';
import { createRng, type Rng } from '../domain/rng.ts';
import type { PlannedPhase, PlannedPhases } from '../machines/index.ts';
import { nearestWords, type RunReader } from '../reading/index.ts';
import { preferenceOf, searchConfigOf } from '../reading/pairing.ts';
import type { Recipe } from '../recipe/schema.ts';
import { episodesOf } from '../rollouts/executor.ts';
import { inOrder } from '../rollouts/work-queue.ts';
import { loadTasks, type NamedTask } from '../scenario/tasks.ts';
import { messageCap, type Scenario, withoutTraining } from '../scenario/types.ts';
import type { Manifest } from '../store/manifest.ts';
import { policyIn, type TeamContext } from './phases/context.ts';
import { planIterations, planRun } from './plan.ts';
import { Comparison, type Recorded, Recording } from './recording.ts';

/** Dialogues that were held together and came out as the log has them. */
export interface ReplayedCohort {
  readonly phase: string;
  readonly cohort: number;
  readonly dialogues: readonly DialogueId[];
  /** In the order of the log; of the dialogues that were asked for alone. */
  readonly events: readonly Recorded[];
}

export interface ReplayedPhase {
  readonly phase: string;
  readonly dialogues: number;
  /** Messages that the actors sent and that were compared. */
  readonly messages: number;
  /** Seconds from the phase's first event to its last cohort's end when it was held; null where only a part was replayed. */
  readonly heldSeconds: number | null;
  /** Dialogues of a cohort that has not ended. */
  readonly underWay: number;
}

/** Which dialogues; all that apply must hold. By default all of a run. */
export interface ReplayChoice {
  /** A task by its id, or the root of its tree in one phase. */
  readonly task?: string | undefined;
  /** The dialogues that take or begin with this turn; of a search those of its whole tree, which hang together. */
  readonly node?: string | undefined;
  readonly iteration?: number | undefined;
}

export interface ReplayPlan {
  readonly run: RunReader;
  readonly manifest: Manifest;
  readonly scenario: Scenario;
  readonly recipe: Recipe;
  readonly choice?: ReplayChoice;
  /** Asks the scenario's environment and metric anew, too. */
  readonly verifyScenario?: boolean;
  /**
   * The policy of this hash, as often as cohorts can be held side by side: what it samples is compared with what was recorded,
   * for whole cohorts, as they were batched.
   */
  readonly modelsOf?: (hash: PolicyHash) => Promise<readonly GenerativeModel[]>;
  /** Gets each cohort when it has been replayed; the next one waits for it. */
  readonly onCohort?: (cohort: ReplayedCohort) => void | Promise<void>;
  readonly onPhase?: (phase: ReplayedPhase) => void;
  readonly signal?: AbortSignal | undefined;
}

export type HeldPhase = PlannedPhases['generate' | 'search' | 'evaluate'];

/**
 * Replays the dialogues of a run, phase by phase. Rejects with `ReplayDivergence` at the first message that is another, with
 * `run.missing` where the choice fits nothing, with `interrupted` on abort, and as `loadTasks` does.
 */
export async function replayRun(plan: ReplayPlan): Promise<readonly ReplayedPhase[]> {
  const context = teamContextOf(plan);
  const { choice = {} } = plan;
  const isWhole = Object.values(choice).every((asked) => asked === undefined);
  // Also of what is not replayed nothing has changed.
  if (isWhole) plan.run.check();
  const replayed: ReplayedPhase[] = [];
  for (const phase of context.plan) {
    if (!holdsDialogues(phase) || !mayHold(phase, choice)) continue;
    const begun = plan.run.phases().find(({ name }) => name === phase.name);
    if (begun === undefined) continue;
    const result = await replayPhase({ ...plan, choice, context, phase, startedAt: begun.startedAt });
    if (result.dialogues + result.underWay === 0) continue;
    replayed.push(result);
    plan.onPhase?.(result);
  }
  if (replayed.length > 0) return replayed;
  const asked = Object.entries(choice).flatMap(([key, value]) =>
    value === undefined ? [] : `--${key} ${value}`,
  );
  const named = choice.node ?? choice.task;
  const what = choice.node === undefined && !choice.task?.includes('/') ? 'task' : 'node';
  throw new OptimaError(
    'run.missing',
    `${plan.run.folder}: holds no dialogue${asked.length > 0 ? ` of ${asked.join(' ')}` : ''}.`,
    { hint: named === undefined ? undefined : nearestWords(plan.run, what, named) },
  );
}

/** What says who spoke in a phase of a run that is read. */
export function teamContextOf({
  run,
  manifest: { base, partners },
  scenario: own,
  recipe,
}: Pick<TeamContext, 'run' | 'scenario' | 'recipe'> & { readonly manifest: Manifest }): TeamContext {
  const scenario = withoutTraining(own, Object.keys(partners ?? {}));
  const [plan, iterations] = [planRun(recipe, scenario), planIterations(recipe, scenario)];
  return { run, recipe, scenario, plan, iterations, base, partners };
}

export const holdsDialogues = (phase: PlannedPhase): phase is HeldPhase =>
  phase.kind === 'generate' || phase.kind === 'search' || phase.kind === 'evaluate';

const treeIn = (node: string): string => node.split('.')[0]!;

function mayHold({ name, iteration }: HeldPhase, { task, node, iteration: asked }: ReplayChoice): boolean {
  const isIn = (tree: string) => tree.slice(0, tree.lastIndexOf('/')) === name;
  if (asked !== undefined && iteration !== asked) return false;
  if (task?.includes('/') && !isIn(task)) return false;
  return node === undefined || isIn(treeIn(node));
}

interface PhaseReplay extends ReplayPlan {
  readonly choice: ReplayChoice;
  readonly context: TeamContext;
  readonly phase: HeldPhase;
  /** ISO 8601. */
  readonly startedAt: string;
}

/** A cohort as it was held, and what the log has of it. */
interface HeldCohort {
  readonly index: number;
  readonly episodes: readonly (Episode | Exploration)[];
  readonly events: readonly Recorded[];
  /** Whether it was completed. */
  readonly ended: boolean;
}

async function replayPhase(replay: PhaseReplay): Promise<ReplayedPhase> {
  const { phase, context, modelsOf, choice, startedAt } = replay;
  const rng = createRng(context.recipe.seed);
  const held = await cohortsOf(replay, rng);
  const team = policyIn(context, phase);
  const models = new Map<PolicyHash, readonly GenerativeModel[]>();
  for (const hash of new Set(Object.values(team))) models.set(hash, (await modelsOf?.(hash)) ?? []);
  const lanes = Math.max(1, Math.min(...[...models.values()].map(({ length }) => length)));
  const isChosen = chosenBy(choice, phase.kind === 'search');
  const isWhole = choice.task === undefined && choice.node === undefined;
  const counted = { dialogues: 0, messages: 0, underWay: 0 };
  const dealt = new Map<string, string>();
  const spans: string[] = [];
  const work = async (lane: number, cohort: HeldCohort) => {
    if (!cohort.ended) counted.underWay += openedIn(cohort.events).length;
    else if (isWhole || openedIn(cohort.events).some(isChosen)) {
      // Rows are computed together: a cohort is sampled as a whole or not at all.
      const chosen = isWhole || modelsOf !== undefined ? cohort : partOf(cohort, isChosen);
      const cast = (recording: Recording): Cast =>
        Object.fromEntries(
          Object.entries(team).map(([role, hash]) => [
            role,
            { model: recording.model(hash, models.get(hash)![lane]), provenance: 'sampled' as const },
          ]),
        );
      counted.messages += await replayCohort(replay, chosen, cast, rng, dealt);
      const dialogues = openedIn(chosen.events).map(({ dialogueId }) => dialogueId);
      counted.dialogues += dialogues.length;
      await replay.onCohort?.({ phase: phase.name, cohort: cohort.index, dialogues, events: chosen.events });
    }
    spans.push(cohort.events.at(-1)?.at ?? '');
  };
  await lastValueFrom(
    inOrder(
      Array.from({ length: lanes }, (_, lane) => lane),
      held,
      (lane, cohort) => work(lane, cohort),
    ),
    { defaultValue: undefined },
  );
  const last = spans
    .filter((at) => at !== '')
    .sort()
    .at(-1);
  const heldSeconds =
    isWhole && last !== undefined ? (Date.parse(last) - Date.parse(startedAt)) / 1000 : null;
  return { phase: phase.name, ...counted, heldSeconds };
}

const openedIn = (events: readonly Recorded[]): MessageOf<'dialogue.opened'>[] =>
  events.flatMap(({ event }) => (event.type === 'dialogue.opened' ? [event] : []));

function chosenBy({ task, node }: ReplayChoice, isSearch: boolean) {
  return ({ taskId, tree, dialogueId }: MessageOf<'dialogue.opened'>): boolean => {
    if (task !== undefined && task !== taskId && task !== tree) return false;
    if (node === undefined || node === tree) return true;
    return isSearch ? tree === treeIn(node) : node === dialogueId || node.startsWith(`${dialogueId}.`);
  };
}

/** The cohort as if only the chosen dialogues had been held: apart from their model, dialogues do not know each other. */
function partOf(cohort: HeldCohort, isChosen: (opened: MessageOf<'dialogue.opened'>) => boolean): HeldCohort {
  const chosen = new Set<string>();
  const trees = new Set<string>();
  for (const opened of openedIn(cohort.events)) {
    if (!isChosen(opened)) continue;
    chosen.add(opened.dialogueId);
    trees.add(opened.tree);
  }
  const nodes = new Set(
    cohort.events.flatMap(({ event }) =>
      (event.type === 'turn.taken' || event.type === 'turn.merged' || event.type === 'turn.failed') &&
      chosen.has(event.dialogueId)
        ? [event.type === 'turn.taken' ? event.turn.id : event.nodeId]
        : [],
    ),
  );
  return {
    ...cohort,
    episodes: cohort.episodes.filter((one) => ('id' in one ? chosen.has(one.id) : trees.has(one.tree))),
    events: cohort.events.filter(({ event }) =>
      event.type === 'turn.requested'
        ? nodes.has(event.nodeId)
        : 'dialogueId' in event && chosen.has(event.dialogueId),
    ),
  };
}

/** The cohorts of a phase that may hold what was chosen: as its plan has them, each with what the log holds of it. */
async function cohortsOf(
  { phase, choice: { task, node }, run, context: { scenario, recipe } }: PhaseReplay,
  rng: Rng,
): Promise<Iterable<HeldCohort>> {
  const tasks = await tasksOf(phase, scenario, rng);
  const planned = plannedCohorts(phase, tasks, scenario, recipe, rng);
  const mayHold = ({ taskId, root }: { readonly taskId: string; readonly root: string }) =>
    (task === undefined || task === taskId || task === root) && (node === undefined || treeIn(node) === root);
  function* read(): Generator<HeldCohort> {
    let [episodes, next]: [HeldCohort['episodes'], number] = [[], 0];
    for (const { cohort: index, from, to } of run.cohorts(phase.name, mayHold)) {
      const events = [...run.lines(from, to ?? undefined)].map((line): Recorded => {
        return { ...line, event: JSON.parse(line.body) };
      });
      const ended = events.at(-1)?.event.type === 'cohort.completed';
      for (; next <= index; next++) episodes = planned.next().value ?? [];
      yield { index, episodes, events, ended };
    }
  }
  return read();
}

/** The tasks of a phase, as its run drew them. */
export const tasksOf = (phase: HeldPhase, scenario: Scenario, rng: Rng): Promise<NamedTask[]> =>
  phase.kind === 'evaluate'
    ? loadTasks(scenario, phase.split, { from: 0, count: phase.tasks }, rng)
    : loadTasks(scenario, 'train', phase.tasks, rng);

function plannedCohorts(
  phase: HeldPhase,
  tasks: readonly NamedTask[],
  scenario: Scenario,
  recipe: Recipe,
  rng: Rng,
): Iterator<readonly (Episode | Exploration)[]> {
  const { name } = phase;
  if (phase.kind === 'search') {
    const trees = tasks.map(({ id: taskId, task }) => ({ tree: rootId(name, taskId), taskId, task }));
    return chunk(trees, preferenceOf(recipe).search.cohort)[Symbol.iterator]();
  }
  const isGenerated = phase.kind === 'generate';
  const samplesPerTask = isGenerated ? phase.samplesPerTask : 1;
  const formats = isGenerated && phase.formats ? scenario.formats : [];
  const episodes = episodesOf({ phase: name, tasks, samplesPerTask, formats, rng });
  return chunk(episodes, recipe.concurrency)[Symbol.iterator]();
}

/** Drives a cohort's actors and compares what they say; resolves with the number of messages. */
async function replayCohort(
  {
    run,
    manifest,
    phase,
    context: { scenario, recipe },
    verifyScenario = false,
    modelsOf,
    signal,
  }: PhaseReplay,
  { episodes, events }: HeldCohort,
  castOf: (recording: Recording) => Cast,
  rng: Rng,
  dealt: Map<string, string>,
): Promise<number> {
  const log = { file: run.log, dealtBefore: (event: RunEvent) => run.dealtBefore(event) };
  const recording = new Recording(scenario, log, events);
  const comparison = new Comparison(
    log,
    events.filter(({ event }) => event.type !== 'cohort.completed'),
    dealt,
  );
  const { temperature } =
    phase.kind === 'evaluate'
      ? { temperature: 0 }
      : phase.kind === 'search'
        ? preferenceOf(recipe).search
        : phase;
  const options: CohortOptions = {
    scenario,
    cast: castOf(recording),
    sampling: { temperature, topP: 1, topK: 0, maxTokens: messageCap(scenario, recipe.maxMessageTokens) },
    rng: rng.split('nodes'),
    turnTimeoutMs: longestTimerMs,
    signal,
    judge: scenario.judge && recording.model((manifest.judge?.hash ?? 'judge') as PolicyHash),
    recallReply: recording.recallReply,
    // What is, byte for byte, a line that was checked needs no second check.
    parse: (message) => message,
    ...(!verifyScenario && {
      courseOf: (episode: Episode) => recording.courseOf(episode),
      metricOf: (dialogue: DialogueId) => recording.metricOf(dialogue),
    }),
  };
  const held =
    phase.kind === 'search'
      ? inOrder(
          Array.from(
            { length: modelsOf === undefined ? 1 : preferenceOf(recipe).search.together },
            (_, place) => place,
          ),
          episodes as readonly Exploration[],
          (_, tree) =>
            runExplorer(tree, {
              ...options,
              search: searchConfigOf(preferenceOf(recipe)),
              choices: rng.split('search'),
              value: async (dialogues) => dialogues.map(({ id }) => recording.rankedOf(id)),
            }),
        )
      : runCohort(episodes as readonly Episode[], options);
  await (held as Observable<RunEvent>).forEach((event) => {
    comparison.hear(event);
  });
  return comparison.end();
}
