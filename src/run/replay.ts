// Replay: the actors of a run's dialogues are driven anew from its log, and each message that they send is compared with the one
// that stands there. No model is called, and nothing of the scenario that may touch the world: what its environment said and its
// metric gave is taken from the log, too.
import { lastValueFrom, type Observable } from 'rxjs';
import {
  type Cast,
  type CohortOptions,
  type Episode,
  type Exploration,
  type RecalledReply,
  runCohort,
  runExplorer,
} from '../actors/index.ts';
import { chunk } from '../domain/chunk.ts';
import { longestTimerMs } from '../domain/clock.ts';
import { Forest } from '../domain/conversation-tree.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEvent, RunEventOf } from '../domain/events.ts';
import { type DialogueId, type NodeId, type PolicyHash, rootId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import { type Generation, type GenerativeModel, RequestsRefused } from '../domain/model.ts';
import { createRng, type Rng } from '../domain/rng.ts';
import type { Observation, Turn } from '../domain/transcript.ts';
import type { PlannedPhase, PlannedPhases } from '../machines/index.ts';
import { preferenceOf, searchConfigOf } from '../reading/pairing.ts';
import type { Recipe } from '../recipe/schema.ts';
import { episodesOf } from '../rollouts/executor.ts';
import { inOrder } from '../rollouts/work-queue.ts';
import { Course } from '../scenario/course.ts';
import { loadTasks, type NamedTask } from '../scenario/tasks.ts';
import { type Metric, messageCap, type Scenario, withoutTraining } from '../scenario/types.ts';
import type { LoggedLine } from '../store/event-log.ts';
import type { RunFolder } from '../store/run-folder.ts';
import { policyIn, type TeamContext } from './phases/context.ts';
import { planIterations, planRun } from './plan.ts';

/** An event of the log, and its line. */
export interface Recorded extends LoggedLine {
  readonly event: RunEvent;
}

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
  /** Opened to be read. */
  readonly run: RunFolder;
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

/** A message that is not the one that was recorded. */
export class ReplayDivergence extends OptimaError {
  /** Number of the recorded event; null where there is none at that place. */
  readonly number: number | null;
  /** As JSON; null: nothing. */
  readonly recorded: string | null;
  readonly sent: string | null;

  constructor(where: string, number: number | null, recorded: string | null, sent: string | null) {
    super('run.diverged', `${where}: what is replayed is not what was recorded.`, {
      hint: 'The code that holds dialogues is another than that which held them: replay with the version that began the run.',
    });
    this.number = number;
    this.recorded = recorded;
    this.sent = sent;
  }
}

type HeldPhase = PlannedPhases['generate' | 'search' | 'evaluate'];

/**
 * Replays the dialogues of a run, phase by phase. Rejects with `ReplayDivergence` at the first message that is another, with
 * `run.missing` where the choice fits nothing, with `interrupted` on abort, and as `loadTasks` does.
 */
export async function replayRun(plan: ReplayPlan): Promise<readonly ReplayedPhase[]> {
  const context = teamContextOf(plan);
  const { choice = {} } = plan;
  const replayed: ReplayedPhase[] = [];
  for (const phase of context.plan) {
    if (!holdsDialogues(phase) || !mayHold(phase, choice)) continue;
    const range = plan.run.rangeOf(phase.name);
    if (range === null) continue;
    const result = await replayPhase({ ...plan, choice, context, phase, range });
    if (result.dialogues + result.underWay === 0) continue;
    replayed.push(result);
    plan.onPhase?.(result);
  }
  if (replayed.length > 0) return replayed;
  const asked = Object.entries(choice).flatMap(([key, value]) =>
    value === undefined ? [] : `--${key} ${value}`,
  );
  throw new OptimaError(
    'run.missing',
    `${plan.run.path}: holds no dialogue${asked.length > 0 ? ` of ${asked.join(' ')}` : ''}.`,
  );
}

/** What says who spoke in a phase of a run that is read. */
export function teamContextOf({
  run,
  scenario: own,
  recipe,
}: Pick<ReplayPlan, 'run' | 'scenario' | 'recipe'>): TeamContext {
  const { base, partners } = run.manifest;
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
  readonly range: { readonly from: number; readonly to: number };
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
  const { phase, context, modelsOf, choice, range, run } = replay;
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
  const [begun] = run.log.lines(range.from, range.from + 1);
  const last = spans
    .filter((at) => at !== '')
    .sort()
    .at(-1);
  const heldSeconds =
    isWhole && last !== undefined ? (Date.parse(last) - Date.parse(begun!.at)) / 1000 : null;
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

/** The cohorts of a phase: as its plan has them, each with what the log holds of it. */
async function cohortsOf(
  { phase, range, run, context: { scenario, recipe } }: PhaseReplay,
  rng: Rng,
): Promise<Iterable<HeldCohort>> {
  const planned = plannedCohorts(phase, await tasksOf(phase, scenario, rng), scenario, recipe, rng);
  function* read(): Generator<HeldCohort> {
    let events: Recorded[] = [];
    let index = 0;
    const next = (ended: boolean): HeldCohort => {
      const episodes = planned.next().value ?? [];
      const cohort = { index: index++, episodes, events, ended };
      events = [];
      return cohort;
    };
    for (const line of run.log.lines(range.from + 1, range.to)) {
      const event: RunEvent = JSON.parse(line.body);
      if (event.type === 'phase.completed') break;
      events.push({ ...line, event });
      if (event.type === 'cohort.completed') yield next(true);
    }
    if (events.length > 0) yield next(false);
  }
  return read();
}

const tasksOf = (phase: HeldPhase, scenario: Scenario, rng: Rng): Promise<NamedTask[]> =>
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
  { run, phase, context: { scenario, recipe }, verifyScenario = false, modelsOf, signal }: PhaseReplay,
  { index, episodes, events }: HeldCohort,
  castOf: (recording: Recording) => Cast,
  rng: Rng,
  dealt: Map<string, string>,
): Promise<number> {
  const recording = new Recording(scenario, run, events);
  const expected = events.filter(({ event }) => event.type !== 'cohort.completed').values();
  let next = expected.next();
  let messages = 0;
  const where = ({ number }: Pick<Recorded, 'number'>) => `${run.log.path}:${number + 1}`;
  const hear = (event: RunEvent): void => {
    messages++;
    const recorded = next.value?.event;
    // Logs of before do not say who refused.
    const isOfBefore = recorded?.type === 'dialogue.closed' && recorded.refusedBy === undefined;
    const sent = JSON.stringify(isOfBefore ? { ...event, refusedBy: undefined } : event);
    const isDeal = event.type === 'task.dealt' || event.type === 'format.dealt';
    if (isDeal && next.value?.event.type !== event.type) {
      // A run notes the first one of each alone.
      const key = event.type === 'task.dealt' ? event.taskId : event.format;
      const before = dealt.get(key) ?? JSON.stringify(run.dealtBefore(event));
      dealt.set(key, before);
      if (before === sent) return;
      throw new ReplayDivergence(`${run.log.path}: ${event.type} ${key}`, null, before ?? null, sent);
    }
    if (next.done) throw new ReplayDivergence(`${phase.name}, cohort ${index}`, null, null, sent);
    const { body, number } = next.value;
    if (body !== sent) throw new ReplayDivergence(where(next.value), number, body, sent);
    if (isDeal) dealt.set(event.type === 'task.dealt' ? event.taskId : event.format, sent);
    next = expected.next();
  };
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
    judge: scenario.judge && recording.model((run.manifest.judge?.hash ?? 'judge') as PolicyHash),
    recallReply: recording.recallReply,
    // What is, byte for byte, a line that was checked needs no second check.
    parse: (message) => message,
    ...(!verifyScenario && {
      courseOf: (episode: Episode) => recording.courseOf(episode),
      metricOf: (dialogue: DialogueId) => recording.metricOf(dialogue),
    }),
  };
  // Nobody keeps a tree as it was.
  const growing = () => new Forest(undefined, { inPlace: true });
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
              forest: growing(),
              search: searchConfigOf(preferenceOf(recipe)),
              choices: rng.split('search'),
              value: async (dialogues) => dialogues.map(({ id }) => recording.rankedOf(id)),
            }),
        )
      : runCohort(episodes as readonly Episode[], { ...options, forest: growing() });
  await (held as Observable<RunEvent>).forEach(hear);
  if (!next.done) throw new ReplayDivergence(where(next.value), next.value.number, next.value.body, null);
  return messages;
}

/** What the log holds of a cohort, by what its actors ask for. */
class Recording {
  readonly #scenario: Scenario;
  readonly #run: RunFolder;
  readonly #said = new Map<string, Generation | OptimaError>();
  readonly #observed = new Map<NodeId, readonly Observation[]>();
  readonly #openings = new Map<string, readonly Observation[]>();
  readonly #failures = new Map<DialogueId, string>();
  readonly #verdicts = new Map<DialogueId, MessageOf<'verdict.given'> | MessageOf<'verdict.failed'>>();
  /** Dialogues whose verdict took its time. */
  readonly #late = new Set<DialogueId>();
  readonly #asked = new Map<DialogueId, MessageOf<'judge.asked'>[]>();
  readonly #ranked = new Map<DialogueId, RunEventOf<'trajectory.ranked'>>();

  constructor(scenario: Scenario, run: RunFolder, events: readonly Recorded[]) {
    this.#scenario = scenario;
    this.#run = run;
    let closed: DialogueId | null = null;
    for (const { event } of events) {
      const justClosed = closed;
      closed = null;
      if (event.type === 'turn.taken') {
        const { turn } = event;
        this.#said.set(turn.id, { ...turn, text: turn.written ?? turn.text });
      } else if (event.type === 'turn.merged') {
        this.#said.set(event.nodeId, { ...event, logprobs: [], finish: 'stop' });
      } else if (event.type === 'turn.failed') {
        this.#said.set(event.nodeId, new OptimaError('model.failed', event.reason));
      } else if (event.type === 'observation.given') this.#observed.set(event.nodeId, event.observations);
      else if (event.type === 'task.dealt') this.#openings.set(event.taskId, event.opening ?? []);
      else if (event.type === 'judge.asked') {
        this.#asked.set(event.dialogueId, [...(this.#asked.get(event.dialogueId) ?? []), event]);
      } else if (event.type === 'dialogue.closed') {
        closed = event.dialogueId;
        if (event.failure !== null) this.#failures.set(event.dialogueId, event.failure);
      } else if (event.type === 'verdict.given' || event.type === 'verdict.failed') {
        this.#verdicts.set(event.dialogueId, event);
        if (event.dialogueId !== justClosed) this.#late.add(event.dialogueId);
      } else if (event.type === 'trajectory.ranked') this.#ranked.set(event.dialogueId, event);
    }
  }

  /** Says what was said; where there is a model, after it has said the same. */
  model(hash: PolicyHash, own?: GenerativeModel): GenerativeModel {
    if (own !== undefined) return verifying(own, (id) => this.#said.get(id));
    return {
      hash,
      generate: async (requests) => {
        const refused = new Map<string, OptimaError>();
        const said = requests.map(({ id }) => {
          const said = this.#said.get(id) ?? notRecorded(id);
          if (said instanceof OptimaError) refused.set(id, said);
          return said;
        });
        if (refused.size > 0) throw new RequestsRefused(refused);
        return said as readonly Generation[];
      },
    };
  }

  courseOf({ id, taskId, task }: Episode): Course {
    return new RecordedCourse(this.#scenario, task, {
      opening: () => this.#openings.get(taskId) ?? this.#openingBefore(taskId),
      observed: (node) => this.#observed.get(node) ?? [],
      failure: this.#failures.get(id) ?? null,
    });
  }

  metricOf(dialogue: DialogueId): Metric {
    const { name } = this.#scenario.metric;
    const verdict = this.#verdicts.get(dialogue);
    const say = () => {
      if (verdict?.type !== 'verdict.given') {
        throw new OptimaError('metric.failed', verdict?.reason ?? 'The log has no verdict.');
      }
      const { taskScore: score, exactMatch, seats } = verdict;
      return { score, exactMatch, ...(seats && { seats }) };
    };
    if (!this.#late.has(dialogue)) return { name, score: say };
    const asked = this.#asked.get(dialogue) ?? [];
    return {
      name,
      score: async (_prediction, _answers, { judge }) => {
        for (const { prompt } of asked) await judge.ask(prompt);
        return say();
      },
    };
  }

  readonly recallReply: RecalledReply = ({ dialogueId, question, prompt }) =>
    this.#asked.get(dialogueId)?.find((asked) => asked.question === question && asked.prompt === prompt) ??
    null;

  rankedOf(dialogue: DialogueId): RunEventOf<'trajectory.ranked'> {
    const ranked = this.#ranked.get(dialogue);
    if (ranked !== undefined) return ranked;
    throw new OptimaError('run.corrupt', `${this.#run.log.path}: no trajectory.ranked of ${dialogue}.`);
  }

  #openingBefore(taskId: Episode['taskId']): readonly Observation[] {
    const dealt = this.#run.dealtBefore({ type: 'task.dealt', taskId, views: {} });
    const opening = dealt?.type === 'task.dealt' ? (dealt.opening ?? []) : [];
    this.#openings.set(taskId, opening);
    return opening;
  }
}

const notRecorded = (node: string): OptimaError =>
  new OptimaError('run.diverged', `The log has no turn ${node}.`);

interface RecordedCourseOptions {
  opening(): readonly Observation[];
  observed(node: NodeId): readonly Observation[];
  /** Why the dialogue failed. */
  readonly failure: string | null;
}

/** A course whose environment says what it said, and throws what it threw. */
class RecordedCourse extends Course {
  readonly #recorded: RecordedCourseOptions;

  constructor(scenario: Scenario, task: unknown, recorded: RecordedCourseOptions) {
    super(scenario, task);
    this.#recorded = recorded;
  }

  protected override observe(by: 'open' | 'respond', turns: readonly Turn[]): Observation[] {
    const { opening, observed, failure } = this.#recorded;
    const last = turns.at(-1);
    const threw =
      by === 'open'
        ? failure?.startsWith(`${dealingFailed}environment.open `)
        : failure?.startsWith(`environment.respond after turn ${turns.length - 1} `) ||
          (failure?.startsWith('Environment said ') && failure.includes(` after turn ${last!.id}, and `));
    if (threw) throw new Error(failure!.replace(dealingFailed, ''));
    return [...(by === 'open' ? opening() : observed(last!.id))];
  }
}

const dealingFailed = 'Dealing the views failed: ';

/** A model that samples anew, and says what was recorded where that is the same; throws `ReplayDivergence` where it is not. */
function verifying(
  model: GenerativeModel,
  recordedOf: (id: string) => Generation | OptimaError | undefined,
): GenerativeModel {
  const wrap = (speaker: GenerativeModel): GenerativeModel => ({
    hash: model.hash,
    generate: async (requests, options) => {
      const sampled = await speaker.generate(requests, options);
      return requests.map(({ id }, row) =>
        compareSampled(id, recordedOf(id) ?? notRecorded(id), sampled[row]!),
      );
    },
  });
  return {
    ...wrap(model),
    openSession: (options) => {
      const session = model.openSession?.(options);
      return { ...wrap(session ?? model), close: () => session?.close() };
    },
  };
}

function compareSampled(id: string, recorded: Generation | OptimaError, sampled: Generation): Generation {
  const said = ({ text, tokenIds, promptTokens }: Generation) =>
    JSON.stringify({ text, tokenIds, promptTokens });
  const before = recorded instanceof OptimaError ? recorded.message : said(recorded);
  if (before === said(sampled)) return recorded as Generation;
  throw new ReplayDivergence(`Turn ${id}`, null, before, said(sampled));
}
