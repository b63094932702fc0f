// Forks: a dialogue that goes on otherwise from a turn of a run. The same actors hold it, the same judge scores it, and its reward is
// computed as the run computes it. It is added to the run's `forks.jsonl`; the run's own log stays as it is.
import { type Cast, type Episode, runCohort, type Speaker } from '../actors/index.ts';
import { longestTimerMs } from '../domain/clock.ts';
import { Forest } from '../domain/conversation-tree.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEventOf } from '../domain/events.ts';
import { childId, type NodeId, type PolicyHash, type TeamPolicy } from '../domain/ids.ts';
import { type DialogueMessage, parseMessage } from '../domain/messages.ts';
import type { ChatMessage, GenerativeModel, LanguageModel, TrainingSequence } from '../domain/model.ts';
import { createRng, type Rng } from '../domain/rng.ts';
import {
  type Deal,
  messageTokens,
  type Observation,
  type Trajectory,
  type Turn,
  viewOf,
} from '../domain/transcript.ts';
import type { PlannedPhases } from '../machines/index.ts';
import { nearestWords, type RunReader } from '../reading/index.ts';
import { preferenceOf, searchAgain, searchConfigOf } from '../reading/pairing.ts';
import { rankOptionsOf, rankTrajectories } from '../reading/ranking.ts';
import type { Recipe } from '../recipe/schema.ts';
import { Course } from '../scenario/course.ts';
import { messageCap, type Scenario, trainedRoles } from '../scenario/types.ts';
import { valueTo } from '../search/index.ts';
import { appendForks, ForkLog, forkOf, type LoggedFork } from '../store/fork-log.ts';
import type { Manifest } from '../store/manifest.ts';
import { policyIn, type TeamContext } from './phases/context.ts';
import { trainsOn } from './phases/forks.ts';
import { pilotNormaliser } from './phases/search.ts';
import { scoreNewTurns } from './readability.ts';
import { holdsDialogues, tasksOf, teamContextOf } from './replay.ts';

/** A run that is forked, and who computes. */
export interface ForkSetting {
  /** It may be under way. */
  readonly run: RunReader;
  readonly manifest: Manifest;
  readonly scenario: Scenario;
  readonly recipe: Recipe;
  /** The run's frozen base: it reads what a person wrote, and readability is measured under it. */
  readonly base: LanguageModel & { encode(messages: readonly ChatMessage[]): TrainingSequence };
  /** A policy of the run, a partner included, by its hash. */
  modelOf(hash: PolicyHash): Promise<GenerativeModel>;
  /** Whom the scenario's metric asks. */
  readonly judge?: GenerativeModel | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What is known of a run without its models. */
export type ForkedRun = Pick<ForkSetting, 'run' | 'manifest' | 'scenario' | 'recipe'>;

export interface ForkRequest {
  /** The first turn stands instead of `node`, as its sibling; or after it, as its child. */
  readonly at: 'instead-of' | 'after';
  /** A turn of the run or of a fork; with `after` also the root of a tree, `<phase>/<task>`. */
  readonly node: string;
  /**
   * What the first turn says; or who plays its role to the end: it gets what that role reads each time. By default the policy
   * speaks. What a person writes is encoded anew and has no log-probabilities.
   */
  readonly say?: string | ((view: readonly ChatMessage[], role: string) => Promise<string>);
  /** Forks to make, which differ in their seeds. Default 1. */
  readonly count?: number;
  /** Who speaks for the roles that are trained, from the fork on: a model with the base's tokenizer. By default who spoke there. */
  readonly policy?: GenerativeModel;
  /** Hears what the dialogues' actors say. */
  readonly onMessage?: (message: DialogueMessage) => void;
}

/** A dialogue and its reward. */
export interface RankedDialogue {
  readonly dialogue: Trajectory;
  readonly ranked: Omit<RunEventOf<'trajectory.ranked'>, 'type'>;
}

export interface Fork extends RankedDialogue {
  readonly fork: number;
  readonly begun: RunEventOf<'fork.begun'>;
  /** Its first turn; null where none was said. */
  readonly turn: Turn | null;
  /** What that is worth to who said it; null without a reward. */
  readonly value: number | null;
  /** Whether the team may be trained on what its speaker says there: then its pair can be kept. */
  readonly trains: boolean;
  /** The turn that it is compared with, and what came of that one; null where the node has no other child. */
  readonly beside: (RankedDialogue & { readonly turn: Turn; readonly value: number | null }) | null;
}

/**
 * Forks a turn, and resolves when the forks are in `forks.jsonl`. Rejects with `run.missing` for a turn that is not there, `usage`
 * where nothing can be said there, `run.exists` while another process writes forks, `io.write`, and as `runCohort` errors.
 */
export async function forkTurn(setting: ForkSetting, request: ForkRequest): Promise<readonly Fork[]> {
  const { context, place, rng, task, course, role } = await floorAt(setting, request);
  const own = policyIn(context, place.phase);
  const { policy, count = 1, say } = request;
  const trained = trainedRoles(context.scenario);
  const team: TeamPolicy =
    policy === undefined
      ? own
      : Object.fromEntries(
          Object.entries(own).map(([role, hash]) => [role, trained.includes(role) ? policy.hash : hash]),
        );
  const cast: Record<string, Speaker> = {};
  for (const [role, hash] of Object.entries(team)) {
    const isOther = policy !== undefined && trained.includes(role);
    cast[role] = { model: isOther ? policy : await setting.modelOf(hash), provenance: 'sampled' };
  }
  const normaliser = normaliserOf(setting.run, context, place);
  let begun: RunEventOf<'fork.begun'>[] = [];
  await appendForks(setting.run.folder, (forks) => {
    begun = Array.from({ length: count }, (_, index) => ({
      type: 'fork.begun',
      fork: forks.next + index,
      dialogueId: childId(place.parent, `f${forks.next + index}`),
      taskId: place.taskId,
      phase: place.phase.name,
      tree: place.tree,
      at: request.at,
      node: request.node as NodeId,
      sibling: place.beside?.turn.id ?? null,
      beside: place.beside?.dialogue.id ?? null,
      said: say === undefined ? 'sampled' : typeof say === 'string' ? 'written' : 'played',
      policy: team,
      own: Object.entries(own).every(([role, hash]) => team[role] === hash),
      temperature: temperatureOf(context, place.phase),
      normaliser,
    }));
    return begun;
  });
  const held = await hold(setting, context, place, { request, begun, cast, task, rng, role });
  const ranked = await rank(setting, context, held.dialogues, course, normaliser);
  await appendForks(setting.run.folder, () => [
    ...held.messages,
    ...ranked.map((one) => ({ type: 'trajectory.ranked' as const, ...one })),
  ]);
  const beside = place.beside && (await rankedBeside(setting, context, place, course, normaliser));
  return begun.map((event, index) => ({
    fork: event.fork,
    begun: event,
    dialogue: held.dialogues[index]!,
    ranked: ranked[index]!,
    turn: held.dialogues[index]!.turns[place.history.length] ?? null,
    value: rewardFor(ranked[index]!, role),
    trains: trainsOn(context.scenario, { speaker: role, taskId: place.taskId }),
    beside,
  }));
}

type Asked = Pick<ForkRequest, 'at' | 'node' | 'say' | 'count'>;

/** Rejects as `forkTurn`, and if it `keeps` pairs as `keepFork`, does before anybody speaks: for it no model is needed. */
export async function requirePlace(
  setting: ForkedRun,
  { keeps = false, ...request }: Asked & { readonly keeps?: boolean | undefined },
): Promise<void> {
  const { context, place, role } = await floorAt(setting, request);
  const why = keeps ? whyNoPair(context, place, role) : null;
  if (why !== null)
    throw new OptimaError('usage', `A fork of ${request.node} makes no pair to keep: ${why}.`);
}

/** Why a fork and what stands beside it are no pair whatever is said; null: they may be one. */
function whyNoPair({ scenario }: TeamContext, { phase, beside }: Place, speaker: string): string | null {
  if (phase.kind === 'evaluate') return `${phase.name} measures the team, and on its tasks nobody is trained`;
  if (beside === null) return 'no other turn stands beside its first one';
  return trainedRoles(scenario).includes(speaker) ? null : `${speaker} is not trained`;
}

/** The place of a fork, and who has the floor there. */
async function floorAt(setting: ForkedRun, request: Asked) {
  const context = teamContextOf(setting);
  const place = locate(setting.run, context, request);
  const rng = createRng(context.recipe.seed);
  const task = await taskOf(context, place, rng);
  const course = new Course(context.scenario, task);
  const next = course.next(place.history);
  if (typeof next === 'string') {
    throw new OptimaError('usage', `After ${request.node} nothing is said: the dialogue is over (${next}).`, {
      hint: `Fork the turn itself: --instead-of ${request.node}`,
    });
  }
  const { count = 1, say } = request;
  if (count > 1 && typeof say !== 'function' && temperatureOf(context, place.phase) === 0) {
    throw new OptimaError(
      'usage',
      `${count} forks of ${request.node} would be the same: in ${place.phase.name} the policy speaks at temperature 0.`,
    );
  }
  return { context, place, rng, task, course, role: next.speaker };
}

/** Where a fork is. */
interface Place {
  readonly phase: PlannedPhases['generate' | 'search' | 'evaluate'];
  readonly tree: NodeId;
  readonly taskId: Trajectory['taskId'];
  readonly deal: Deal;
  readonly dialogues: readonly Known[];
  /** The node below which its first turn stands. */
  readonly parent: NodeId;
  /** From the root to there. */
  readonly history: readonly Turn[];
  readonly format: string | null;
  readonly beside: Beside | null;
}

type ToldTree = NonNullable<ReturnType<RunReader['conversation']>>;

interface Beside {
  readonly turn: Turn;
  readonly dialogue: Trajectory;
  readonly ranked: RankedDialogue['ranked'] | null;
  readonly value: number | null;
}

function locate(
  run: RunReader,
  context: TeamContext,
  { at, node: asked }: Pick<ForkRequest, 'at' | 'node'>,
): Place {
  const node = asked as NodeId;
  const tree = asked.split('.')[0]! as NodeId;
  const missing = () =>
    new OptimaError('run.missing', `${run.folder}: there is no turn ${asked}.`, {
      hint: nearestWords(run, 'node', asked),
    });
  const phase = context.plan.find(({ name }) => name === tree.slice(0, tree.lastIndexOf('/')));
  if (phase === undefined || !holdsDialogues(phase)) throw missing();
  const told = run.conversation(tree);
  if (told === null) throw missing();
  const { taskId } = told.conversation;
  const deal = told.forest.dealOf(taskId);
  const dialogues = dialoguesIn(run, tree, told, deal);
  const isRoot = node === tree;
  if (isRoot && at === 'instead-of') {
    throw new OptimaError('usage', `${asked} is a task and no turn: nothing stands instead of it.`, {
      hint: `Name its first turn, or give --after ${asked} for another first turn.`,
    });
  }
  // A dialogue that takes the turn; what is beside it is another child of the node below which the fork stands.
  const through = isRoot
    ? dialogues[0]
    : dialogues.find(({ dialogue }) => dialogue.turns.some(({ id }) => id === node));
  if (through === undefined) throw missing();
  const { turns } = through.dialogue;
  const length = isRoot ? 0 : turns.findIndex(({ id }) => id === node) + (at === 'after' ? 1 : 0);
  const turn = turns[length];
  return {
    ...{ phase, tree, deal, dialogues, taskId },
    parent: turns[length - 1]?.id ?? tree,
    history: turns.slice(0, length),
    format: through.dialogue.format,
    beside:
      turn === undefined
        ? null
        : { ...through, turn, value: valueOfTurn(context, phase, told, dialogues, turn) },
  };
}

type Known = Pick<Beside, 'dialogue' | 'ranked'>;

/** The finished dialogues of a tree, the run's and then the forks', with their rewards where the log has them. */
function dialoguesIn(run: RunReader, tree: NodeId, told: ToldTree, deal: Deal): Known[] {
  const own = told.dialogues
    .filter(({ outcome, verdict }) => outcome === 'failed' || verdict !== null)
    .map(({ summary, questions, ranked, ...dialogue }): Known => {
      return { dialogue: dialogue as Trajectory, ranked: ranked && withoutType(ranked) };
    });
  const forked = run.forks(tree).map(({ begun, format, turns, closed, verdict, ranked }): Known => {
    const { dialogueId: id, taskId } = begun;
    const dialogue = trajectoryOf({ id, taskId, format, turns, deal, closed, verdict });
    return { dialogue, ranked: withoutType(ranked) };
  });
  return [...own, ...forked];
}

const withoutType = ({ type, ...ranked }: RunEventOf<'trajectory.ranked'>): RankedDialogue['ranked'] =>
  ranked;

function trajectoryOf({
  id,
  taskId,
  format,
  turns,
  deal,
  closed,
  verdict,
}: Pick<Trajectory, 'id' | 'taskId' | 'format' | 'turns'> &
  Pick<LoggedFork, 'closed' | 'verdict'> & { readonly deal: Deal }): Trajectory {
  const common = { id, taskId, format, turns, ...deal };
  if (verdict?.type !== 'verdict.given') {
    const { refusedBy } = closed;
    return {
      ...{ ...common, outcome: 'failed', failure: verdict?.reason ?? closed.failure, verdict: null },
      ...(refusedBy !== undefined && { refusedBy }),
    };
  }
  const { taskScore, exactMatch, answer, seats } = verdict;
  const given = { taskScore, exactMatch, answer, ...(seats && { seats }) };
  return { ...common, outcome: closed.outcome, failure: null, verdict: given };
}

/** What a turn is worth to who said it: in a search its value, else the mean reward of the dialogues that take it; null: unknown. */
function valueOfTurn(
  { recipe }: TeamContext,
  phase: Place['phase'],
  told: ToldTree,
  dialogues: readonly Known[],
  { id, speaker }: Turn,
): number | null {
  if (phase.kind === 'search' && forkOf(id) === null) {
    const config = searchConfigOf(preferenceOf(recipe));
    const node = searchAgain(told, config, createRng(recipe.seed)).tree.nodes.get(id);
    return node === undefined ? null : valueTo(speaker, node);
  }
  const rewards = dialogues.flatMap(({ dialogue, ranked }) => {
    const isOwn = forkOf(dialogue.id) === forkOf(id) && dialogue.turns.some((turn) => turn.id === id);
    const reward = ranked === null ? null : rewardFor(ranked, speaker);
    return isOwn && reward !== null ? [reward] : [];
  });
  return rewards.length === 0 ? null : rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
}

const rewardFor = (
  { reward, seats }: Pick<RankedDialogue['ranked'], 'reward' | 'seats'>,
  speaker: string,
): number | null => seats?.[speaker] ?? reward;

async function taskOf({ scenario }: TeamContext, { phase, taskId }: Place, rng: Rng): Promise<unknown> {
  const tasks = await tasksOf(phase, scenario, rng);
  return tasks.find(({ id }) => id === taskId)!.task;
}

/** As the phase takes the tokens of its own dialogues: the longest judged one of the task, or of a search its pilot's. */
function normaliserOf(run: RunReader, { recipe }: TeamContext, { phase, dialogues }: Place): number | null {
  if (phase.kind === 'search') {
    const pilot = [...run.dialogues({ phase: phase.pilot })].filter(({ taskScore }) => taskScore !== null);
    return pilotNormaliser(
      pilot.map(({ tokens }) => tokens),
      recipe,
      phase,
    );
  }
  const judged = dialogues.filter(({ dialogue: { id, verdict } }) => verdict !== null && forkOf(id) === null);
  return judged.length === 0
    ? null
    : Math.max(...judged.map(({ dialogue }) => messageTokens(dialogue.turns)));
}

function temperatureOf({ recipe }: TeamContext, phase: Place['phase']): number {
  if (phase.kind === 'search') return preferenceOf(recipe).search.temperature;
  return phase.kind === 'evaluate' ? 0 : phase.temperature;
}

interface Held {
  readonly request: ForkRequest;
  readonly begun: readonly RunEventOf<'fork.begun'>[];
  readonly cast: Cast;
  readonly task: unknown;
  readonly rng: Rng;
  /** Who has the floor at the fork. */
  readonly role: string;
}

async function hold(
  { base, judge, signal }: ForkSetting,
  { scenario, recipe }: TeamContext,
  { tree, taskId, history, format: name, deal }: Place,
  { request, begun, cast, task, rng, role }: Held,
): Promise<{ readonly messages: readonly DialogueMessage[]; readonly dialogues: readonly Trajectory[] }> {
  const format = name === null ? null : scenario.formats.find((one) => one.name === name);
  if (format === undefined)
    throw new OptimaError('run.diverged', `The scenario has no format "${name}" any more.`);
  const episodes = begun.map(
    ({ dialogueId: id }): Episode => ({ id, tree, taskId, task, format, history: [...history] }),
  );
  const first = new Set(episodes.map(({ id }) => id));
  const { say } = request;
  const person: Speaker | null =
    say === undefined ? null : { model: personWith(say, base, role), provenance: 'human' };
  const forest = new Forest();
  const messages: DialogueMessage[] = [];
  await runCohort(episodes, {
    scenario,
    cast,
    sampling: {
      ...{ temperature: begun[0]!.temperature, topP: 1, topK: 0 },
      maxTokens: messageCap(scenario, recipe.maxMessageTokens),
    },
    rng: rng.split('nodes'),
    signal,
    judge,
    turnTimeoutMs: longestTimerMs,
    forest,
    speakerAt: (node, speaker) =>
      person !== null && (typeof say === 'string' ? first.has(node) : speaker === role) ? person : undefined,
    courseOf: () => new ForkedCourse(scenario, task, history, deal.opening ?? []),
  }).forEach((message) => {
    messages.push(parseMessage(message));
    request.onMessage?.(message);
  });
  return { messages, dialogues: episodes.map(({ id }) => forest.trajectoryOf(id)!) };
}

/** A course that takes what its environment said up to the fork from the log: no tool is asked a second time. */
export class ForkedCourse extends Course {
  readonly #history: ReadonlyMap<NodeId, readonly Observation[]>;
  readonly #opening: readonly Observation[];

  constructor(scenario: Scenario, task: unknown, history: readonly Turn[], opening: readonly Observation[]) {
    super(scenario, task);
    this.#history = new Map(history.map(({ id, observed }) => [id, observed ?? []]));
    this.#opening = opening;
  }

  protected override observe(by: 'open' | 'respond', turns: readonly Turn[]): Observation[] {
    const known = by === 'open' ? this.#opening : this.#history.get(turns.at(-1)!.id);
    return known === undefined ? super.observe(by, turns) : [...known];
  }
}

/** Whose words are another's: named so in the turns that it wrote. */
export const person = 'person' as PolicyHash;

/** A person as a model: what is written has the ids that the base's tokenizer gives it, and no log-probabilities. */
function personWith(
  say: NonNullable<ForkRequest['say']>,
  base: Pick<ForkSetting['base'], 'encode'>,
  role: string,
): GenerativeModel {
  return {
    hash: person,
    generate: (requests) =>
      Promise.all(
        requests.map(async ({ messages }) => {
          const text = typeof say === 'string' ? say : await say(messages, role);
          const { tokenIds, lossMask } = base.encode([...messages, { role: 'assistant', content: text }]);
          const end = lossMask.lastIndexOf(1) + 1;
          const start = lossMask.lastIndexOf(0, end - 1) + 1;
          const ids = tokenIds.slice(start, end);
          return { text, tokenIds: ids, logprobs: [], finish: 'stop' as const, promptTokens: start };
        }),
      ),
  };
}

async function rank(
  { base }: Pick<ForkSetting, 'base'>,
  { scenario, recipe }: TeamContext,
  dialogues: readonly Trajectory[],
  { answer }: Course,
  normaliser: number | null,
): Promise<RankedDialogue['ranked'][]> {
  const known = new WeakMap<Turn, readonly number[]>();
  await scoreNewTurns(base, dialogues, known, trainedRoles(scenario));
  const logprobs = new Map(
    dialogues.map(({ id, turns }) => [id, turns.map((turn) => known.get(turn) ?? [])]),
  );
  return rankTrajectories(dialogues, logprobs, {
    ...rankOptionsOf(recipe, scenario),
    answer,
    ...(normaliser !== null && { normaliser }),
  });
}

/** What stands beside a fork, with its reward: the log's, or where its phase gives none, computed alike. */
async function rankedBeside(
  setting: ForkSetting,
  context: TeamContext,
  { beside }: Place,
  course: Course,
  normaliser: number | null,
): Promise<NonNullable<Fork['beside']>> {
  const { turn, dialogue, value } = beside!;
  const ranked = beside!.ranked ?? (await rank(setting, context, [dialogue], course, normaliser))[0]!;
  return { turn, dialogue, ranked, value: value ?? rewardFor(ranked, turn.speaker) };
}

/**
 * Keeps a fork's first turn and the turn beside it as a pair to train on: the better one is the one that is worth more to who said
 * it. Rejects with `run.missing` for a fork that is not there, `usage` where the two are no pair or of a task that measures, and as
 * `appendForks` does.
 */
export async function keepFork(
  setting: ForkedRun & Pick<ForkSetting, 'base'>,
  number: number,
): Promise<RunEventOf<'pair.kept'>> {
  const { run } = setting;
  const forks = ForkLog.read(run.folder);
  const fork = forks.forks.get(number);
  if (fork === undefined) throw new OptimaError('run.missing', `${run.folder}: there is no fork ${number}.`);
  const refuse = (why: string) => new OptimaError('usage', `Fork ${number} makes no pair: ${why}.`);
  const refuseKept = ({ kept }: ForkLog) => {
    // What another run's fork made has that run's number.
    if (kept.some((pair) => pair.from === undefined && pair.fork === number))
      throw refuse('it is kept already');
  };
  refuseKept(forks);
  const { begun, turns, ranked } = fork;
  const context = teamContextOf(setting);
  const place = locate(run, context, { at: begun.at, node: begun.node });
  const [turn] = turns;
  if (turn === undefined) throw refuse('nothing was said in it');
  const why = whyNoPair(context, place, turn.speaker);
  if (why !== null) throw refuse(why);
  const course = new Course(context.scenario, await taskOf(context, place, createRng(context.recipe.seed)));
  const beside = await rankedBeside(setting as ForkSetting, context, place, course, begun.normaliser);
  const [own, other] = [rewardFor(ranked, turn.speaker), beside.value];
  if (own === null) throw refuse('it has no reward');
  if (other === null) throw refuse('what stands beside it has no value');
  if (turn.text === beside.turn.text) throw refuse('both turns say the same');
  const gap = Math.abs(own - other);
  if (gap < smallestGap)
    throw refuse(`both turns are worth the same, but for rounding${thresholdWords(setting.recipe)}`);
  const [better, worse] = own > other ? [turn, beside.turn] : [beside.turn, turn];
  const asKept = ({ id, text, written, tokenIds, policyHash, provenance }: Turn) => ({
    ...{ id, text: written ?? text, tokenIds, policyHash, provenance },
  });
  const kept: RunEventOf<'pair.kept'> = {
    type: 'pair.kept',
    fork: number,
    taskId: begun.taskId,
    tree: begun.tree,
    parent: turn.parent,
    speaker: turn.speaker,
    view: viewOf(turn.speaker, place.deal, place.history),
    chosen: asKept(better),
    rejected: asKept(worse),
    value: Math.max(own, other),
    gap,
  };
  await appendForks(run.folder, (now) => {
    // Another process may have kept it meanwhile.
    refuseKept(now);
    return [kept];
  });
  return kept;
}

/** Below it a difference of rewards says nothing of the turns: it is 0 to six decimals. */
const smallestGap = 5e-7;

/** How far apart a recipe's own pairs are. A person may keep a closer one. */
export const thresholdWords = (recipe: Recipe): string =>
  'pairs' in recipe
    ? ` (the run's own pairs differ by more than ${recipe.pairs.thetaDiff}, pairs.thetaDiff)`
    : '';

/** The turn that a fork would stand beside; null where there is none. Throws as `forkTurn` does for a place that is not there. */
export const turnAt = (setting: ForkedRun, request: Pick<ForkRequest, 'at' | 'node'>): Turn | null =>
  locate(setting.run, teamContextOf(setting), request).beside?.turn ?? null;
