// A scenario on a page: one dealt task as every role sees it, who speaks when, what the scorer says to made-up answers, and what
// a dialogue costs.
import { everyRole, runCohort } from '../actors/index.ts';
import { childId, rootId } from '../domain/ids.ts';
import { mean } from '../domain/metrics.ts';
import type { GenerativeModel } from '../domain/model.ts';
import { createRng } from '../domain/rng.ts';
import type { Outcome, Turn } from '../domain/transcript.ts';
import { scriptedModel } from '../models/scripted/index.ts';
import { trajectoriesOf } from '../rollouts/executor.ts';
import { Course, type Floor, mannerOf } from '../scenario/course.ts';
import { loadTasks, type NamedTask } from '../scenario/tasks.ts';
import { messageCap, type Scenario } from '../scenario/types.ts';
import { stands, textsIn, toldTo } from './tasks.ts';

export interface Page {
  readonly taskId: string;
  readonly roles: readonly RolePage[];
  /** The fields of the task, and its answers. */
  readonly parts: readonly TaskPart[];
  /** What the environment says before the first turn. */
  readonly opening: readonly string[];
  /** Who speaks while nobody states an answer; those who speak at once are joined by +. */
  readonly order: readonly string[];
  readonly maxTurns: number;
  /** Turns after which a team ends whose every message states the right answer, and how; null where no answer is right beforehand. */
  readonly shortest: { readonly turns: number; readonly outcome: Outcome } | null;
  /** Empty where no answer is right, or the judge that the metric asks is not there. */
  readonly answers: readonly ScoredAnswer[];
  /** What demonstrations come to; null without a demonstrator, or where none was scored. */
  readonly demonstrated: Demonstrated | null;
  readonly tokens: TokenCosts;
}

/** A field of the task. */
export interface TaskPart {
  readonly path: string;
  /** The texts and numbers in it, at any depth. */
  readonly texts: readonly string[];
  /** How many of them each role is told; without those who are told none. Empty for a field that is hidden. */
  readonly seenBy: Readonly<Record<string, number>>;
}

export interface RolePage {
  readonly role: string;
  /** As the others call it; null where speakers have no names. */
  readonly name: string | null;
  /** Tokens of its view. */
  readonly tokens: number;
  readonly lines: readonly { readonly text: string; readonly isPrivate: boolean }[];
}

/** What comes of a dialogue in which every message is this one. */
export interface ScoredAnswer {
  readonly what: string;
  readonly message: string;
  /** As it was read; null for none. */
  readonly read: string | null;
  readonly score: number | null;
  readonly exactMatch: boolean | null;
  readonly outcome: Outcome;
  readonly failure: string | null;
}

/** Of the demonstrations of the first tasks. */
export interface Demonstrated {
  /** How many were scored. */
  readonly n: number;
  /** Mean score, of the team and of each seat, and the shares of those that were right and that ended in agreement. */
  readonly score: number;
  readonly seats: Readonly<Record<string, number>> | null;
  readonly right: number;
  readonly agreed: number;
}

/** Message tokens of a dialogue. */
export interface TokenCosts {
  /** Of one whose every message states the right answer and no more; null where no answer is right beforehand. */
  readonly shortest: number | null;
  /** Mean of ten demonstrated ones; null without a demonstrator. */
  readonly demonstrated: number | null;
  /** Of one whose every message runs into its cap. */
  readonly longest: number;
  readonly maxMessageTokens: number;
  /** Most that a role would then have to read, its view included. */
  readonly context: number;
}

/** Lays out the first training task of a seed; `countTokens` is the tokenizer of the model that is to speak. */
export async function describeScenario(
  scenario: Scenario,
  seed: number,
  countTokens: (text: string) => number,
  judge?: GenerativeModel,
): Promise<Page> {
  const tasks = await loadTasks(scenario, 'train', { from: 0, count: 10 }, createRng(seed));
  const { id, task } = tasks[0]!;
  const roles = Object.keys(scenario.roles);
  const course = new Course(scenario, task);
  const { views, opening = [] } = course.deal();
  const told = new Map(roles.map((role) => [role, toldTo(role, scenario, task)]));
  const linesOf = (role: string) => views[role]!.split('\n');
  const { maxTurns } = scenario.protocol;
  const answers = scenario.answers(task);
  const right = answers.length === 0 ? null : scenario.answer.example(answers[0]!);
  const shortest = right === null ? null : play(course, right);
  const maxMessageTokens = messageCap(scenario, null);
  const largest = Math.max(...[...told.values()].map(countTokens));
  const samples = (scenario.demonstrate === undefined ? [] : tasks).map((named) =>
    demonstrated(scenario, named, seed).reduce((sum, { text }) => sum + countTokens(text) + 1, 0),
  );
  const judgeIsMissing = scenario.judge !== undefined && judge === undefined;
  return {
    taskId: id,
    roles: roles.map((role) => ({
      role,
      name: mannerOf(scenario, { speaker: role }, '').name ?? null,
      tokens: countTokens(views[role]!),
      lines: linesOf(role).map((text) => ({
        text,
        isPrivate: roles.every((other) => other === role || !linesOf(other).includes(text)),
      })),
    })),
    parts: partsOf(task, answers).map(([path, value]) => {
      const texts = textsIn(value);
      const seen = roles.map(
        (role) => [role, texts.filter((text) => stands(text, told.get(role)!)).length] as const,
      );
      return { path, texts, seenBy: Object.fromEntries(seen.filter(([, count]) => count > 0)) };
    }),
    opening: opening.map(({ text }) => text),
    order: floorsOf(play(course, 'I do not know.').floors),
    maxTurns,
    shortest: shortest && { turns: shortest.turns.length, outcome: shortest.outcome },
    answers: judgeIsMissing ? [] : await scoreAnswers(scenario, tasks, seed, judge),
    demonstrated: judgeIsMissing ? null : await scoreDemonstrations(scenario, tasks, seed, judge),
    tokens: {
      // The end of a message is a token.
      shortest: shortest && shortest.turns.length * (countTokens(right!) + 1),
      demonstrated: samples.length === 0 ? null : mean(samples),
      longest: maxTurns * maxMessageTokens,
      maxMessageTokens,
      context: largest + maxTurns * maxMessageTokens,
    },
  };
}

/** A dialogue of one and the same message. */
function play(course: Course, text: string) {
  const floors: Floor[] = [];
  let turns: readonly Turn[] = [];
  let next = course.next(turns);
  for (; typeof next !== 'string'; next = course.next(turns)) {
    floors.push(next);
    turns = course.record(turns, next, text);
  }
  return { floors, turns, outcome: next };
}

function floorsOf(floors: readonly Floor[]): string[] {
  const rounds: string[] = [];
  for (const { speaker, round, to } of floors) {
    const said = to === undefined ? speaker : `${speaker} (to ${to.join(', ')})`;
    if (round !== undefined && round[0] !== speaker) rounds.push(`${rounds.pop()} + ${said}`);
    else rounds.push(said);
  }
  return rounds;
}

/** The task's fields, or the task itself where it has none, and the answers where there are some. */
function partsOf(task: unknown, answers: readonly string[]): [string, unknown][] {
  const isPlain = typeof task !== 'object' || task === null;
  const fields = isPlain
    ? [['task', task] as [string, unknown]]
    : Object.entries(task).map(([key, value]): [string, unknown] => [`task.${key}`, value]);
  return answers.length === 0 ? fields : [...fields, ['answers', answers]];
}

/** Lets real dialogues be held, and judged, in which every message states one of five answers to the first task. */
async function scoreAnswers(
  scenario: Scenario,
  [{ id: taskId, task }, ...others]: readonly NamedTask[] | readonly [NamedTask],
  seed: number,
  judge: GenerativeModel | undefined,
): Promise<ScoredAnswer[]> {
  const [right, alias] = scenario.answers(task);
  if (right === undefined) return [];
  const wrong = others.map((other) => scenario.answers(other.task)[0]).find((answer) => answer !== right);
  const stated = (what: string, answer: string) => ({ what, message: scenario.answer.example(answer) });
  const made = [
    stated('right', right),
    alias === undefined
      ? stated('in another case, with a full stop', `${swapCase(right)}.`)
      : stated('an alias', alias),
    stated('a near miss', nearMiss(right)),
    stated("another task's answer", wrong ?? 'zzyzx'),
    { what: 'no answer', message: 'I do not know.' },
  ];
  return Promise.all(
    made.map(async ({ what, message }) => {
      const held = await hold(scenario, { id: taskId, task }, () => message, seed, judge);
      const { verdict, outcome, failure } = held;
      const { answer: read = null, taskScore: score = null, exactMatch = null } = verdict ?? {};
      return { what, message, read, score, exactMatch, outcome, failure };
    }),
  );
}

/** Lets the demonstrations of tasks be held, and judged, as real dialogues. */
async function scoreDemonstrations(
  scenario: Scenario,
  tasks: readonly NamedTask[],
  seed: number,
  judge: GenerativeModel | undefined,
): Promise<Demonstrated | null> {
  if (scenario.demonstrate === undefined) return null;
  const held = await Promise.all(
    tasks.map((named) => {
      const turns = demonstrated(scenario, named, seed)[Symbol.iterator]();
      return hold(scenario, named, () => turns.next().value?.text ?? '', seed, judge);
    }),
  );
  const verdicts = held.flatMap(({ verdict }) => verdict ?? []);
  if (verdicts.length === 0) return null;
  const seats = verdicts[0]!.seats && Object.keys(verdicts[0]!.seats);
  const seatMean = (seat: string) => mean(verdicts.map((verdict) => verdict.seats![seat]!));
  return {
    n: verdicts.length,
    score: mean(verdicts.map(({ taskScore }) => taskScore)),
    seats: seats ? Object.fromEntries(seats.map((seat) => [seat, seatMean(seat)])) : null,
    right: mean(verdicts.map(({ exactMatch }) => Number(exactMatch))),
    agreed: mean(held.filter(({ verdict }) => verdict).map(({ outcome }) => Number(outcome === 'agreed'))),
  };
}

const demonstrated = (scenario: Scenario, { id, task }: NamedTask, seed: number) =>
  scenario.demonstrate?.(task, createRng(seed).split('demonstrate').split(id)).turns ?? [];

/** A real dialogue of one task, judged. */
async function hold(
  scenario: Scenario,
  { id: taskId, task }: NamedTask,
  reply: () => string,
  seed: number,
  judge: GenerativeModel | undefined,
) {
  const tree = rootId('page', taskId);
  const dialogue = runCohort([{ id: childId(tree, 0), tree, taskId, task, format: null }], {
    scenario,
    cast: everyRole(scenario, scriptedModel({ reply })),
    sampling: { temperature: 0, topP: 1, topK: 0, maxTokens: 1024 },
    rng: createRng(seed),
    judge,
  });
  return (await trajectoriesOf(dialogue))[0]!;
}

const swapCase = (text: string) => (text.toLowerCase() === text ? text.toUpperCase() : text.toLowerCase());

/** The number beside it, the next letter, or the words but for the last one or its last letter. */
function nearMiss(answer: string): string {
  const number = Number(answer.replaceAll(',', ''));
  if (answer.trim() !== '' && Number.isFinite(number)) return String(number + 1);
  if (/^[A-Z]$/u.test(answer)) return String.fromCharCode(answer.charCodeAt(0) + (answer === 'Z' ? -1 : 1));
  const words = answer.split(' ');
  return words.length > 1 ? words.slice(0, -1).join(' ') : answer.slice(0, -1) || 'x';
}
