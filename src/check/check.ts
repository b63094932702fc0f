// `optima check`: deals ten tasks of a scenario, plays scripted dialogues on them, and finds what a type checker
// cannot: leaks, protocols without an end, answers that are not read back, metrics that deny their own answers.
import { everyRole, runCohort } from '../actors/index.ts';
import { messageOf, nearest, OptimaError, refused } from '../domain/errors.ts';
import { childId, rootId } from '../domain/ids.ts';
import type { GenerativeModel } from '../domain/model.ts';
import { createRng } from '../domain/rng.ts';
import type { Turn } from '../domain/transcript.ts';
import { scriptedModel } from '../models/scripted/index.ts';
import { trajectoriesOf } from '../rollouts/executor.ts';
import { Course } from '../scenario/course.ts';
import { metricTimeoutMs, nobody, type Scored, scoreDialogue } from '../scenario/score.ts';
import { loadTasks, type NamedTask } from '../scenario/tasks.ts';
import { type Demonstration, type Scenario, type ScenarioDefinition, splits } from '../scenario/types.ts';
import {
  checkForm,
  checkRepeats,
  checkSolvable,
  checkSplits,
  type Report,
  stands,
  textsIn,
  toldTo,
} from './tasks.ts';

export interface Finding {
  /** An error makes results wrong or a run fail; a warning is worth a look. */
  readonly severity: 'error' | 'warning';
  /** What was checked: `tasks`, `views`, `protocol`, `answer`, `metric`, `demonstrate`, `dialogue`. */
  readonly check: string;
  readonly message: string;
}

const taskCount = 10;

/**
 * Everything found wrong with a scenario, in the order in which a dialogue would meet it. Without the `judge` that its metric
 * asks for, its scores are not looked at.
 */
export async function checkScenario(
  scenario: Scenario,
  seed: number,
  judge?: GenerativeModel,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  const report =
    (severity: Finding['severity']) =>
    (check: string, message: string): void => {
      // What goes wrong for one task usually does for all: the first is enough.
      if (!findings.some((finding) => finding.check === check && alike(finding.message, message))) {
        findings.push({ severity, check, message });
      }
    };
  const error = report('error');
  const warning = report('warning');
  /** Whether it went through; what it throws is an error of that check. */
  const guard = async (check: string, where: string, run: () => void | Promise<void>): Promise<boolean> => {
    try {
      await run();
      return true;
    } catch (thrown) {
      const isMetrics = thrown instanceof OptimaError && thrown.code === 'metric.failed';
      error(isMetrics ? 'metric' : check, `${where}: ${messageOf(thrown)}`);
      return false;
    }
  };

  checkFields(scenario, warning);
  const tasks = await dealTasks(scenario, seed, error);
  if (tasks.length === 0) return findings;
  // Where nothing can be dealt all else would fail of the same.
  if (!(await guard('views', 'sees', () => checkViews(scenario, tasks, error, warning)))) return findings;
  if (!(await guard('answer', 'answers', () => requireAnswers(scenario, tasks)))) return findings;
  await guard('tasks', tasks[0]!.id, () => checkRepeats(scenario, tasks[0]!, error));
  await guard('views', tasks[0]!.id, () => checkForm(scenario, tasks[0]!, warning));
  await guard('protocol', 'protocol', () => checkProtocol(scenario, tasks[0]!, error, warning));
  for (const { id, task } of tasks) {
    await guard('answer', id, () => checkAnswers(scenario, id, task, error, warning));
    await guard('demonstrate', id, () => checkDemonstration(scenario, id, task, seed, error, warning));
    // A metric that hangs once would for every task.
    if (findings.some(({ message }) => message.includes(hanging))) break;
  }
  if (scenario.judge !== undefined && judge === undefined) {
    warning(
      'metric',
      'asks a judge model: its scores were not looked at. Name its checkpoint: --judge <folder>.',
    );
  } else if (!findings.some(({ severity }) => severity === 'error')) {
    await guard('tasks', 'views and answers', () => checkSolvable(scenario, seed, error, warning));
    await guard('tasks', 'views and answers', () => checkSplits(scenario, seed, warning));
    await guard('dialogue', 'played', () =>
      playDialogues(scenario, tasks, seed, judge, error, unlessReferee(scenario, error, warning)),
    );
  }
  return findings;
}

/** Every field that a scenario may have. */
const fields: Readonly<Record<keyof ScenarioDefinition<unknown, string>, true>> = {
  ...{ name: true, kind: true, description: true, tasks: true, variants: true, roles: true, protocol: true },
  ...{ environment: true, names: true, notes: true, answer: true, answers: true, metric: true, judge: true },
  ...{ maxMessageTokens: true, reward: true, formats: true, demonstrate: true },
};

/** A misspelt field that may be left out is as good as left out; a JavaScript file has met no type checker. */
function checkFields(scenario: Scenario, warning: Report): void {
  for (const field of Object.keys(scenario)) {
    if (Object.hasOwn(fields, field)) continue;
    const guess = nearest(field, Object.keys(fields));
    warning(
      'fields',
      `"${field}" is no field of a scenario, and is not read.${guess ? ` Did you mean "${guess}"?` : ''}`,
    );
  }
}

/** What `answers` gives is compared as texts: throws a TypeError where it is something else. */
function requireAnswers(scenario: Scenario, tasks: readonly NamedTask[]): void {
  for (const { id, task } of tasks) {
    const given: unknown = scenario.answers(task);
    if (!Array.isArray(given)) throw new TypeError(`${id}: gave ${refused(given)}, not a list of texts`);
    const other = given.find((answer) => typeof answer !== 'string');
    if (other !== undefined)
      throw new TypeError(`${id}: gave ${refused(other)} in its list, where a text should be: String(…)`);
  }
}

/** Ten training tasks; also looks whether dealing is repeatable and whether every split has tasks. */
async function dealTasks(scenario: Scenario, seed: number, error: Report): Promise<NamedTask[]> {
  try {
    const deal = (count: number) => loadTasks(scenario, 'train', { from: 0, count }, createRng(seed));
    const tasks = await deal(taskCount);
    const text = (some: readonly NamedTask[]) =>
      JSON.stringify(some, (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value));
    if (text(await deal(taskCount)) !== text(tasks)) {
      error(
        'tasks',
        'tasks.load: the same seed does not give the same tasks; draw only from the rng that it is given.',
      );
    } else if (text(await deal(3)) !== text(tasks.slice(0, 3))) {
      error('tasks', 'tasks.load: the first tasks depend on how many are loaded.');
    } else if (new Set(tasks.map(({ task }) => text([{ ...tasks[0]!, task }]))).size === 1) {
      error('tasks', `tasks.load: the first ${tasks.length} tasks are all the same.`);
    }
    for (const split of splits) {
      await loadTasks(scenario, split, { from: 0, count: 1 }, createRng(seed));
    }
    return tasks;
  } catch (thrown) {
    const hint = thrown instanceof OptimaError && thrown.hint !== undefined ? ` ${thrown.hint}` : '';
    error('tasks', `${messageOf(thrown)}${hint}`);
    return [];
  }
}

/**
 * In an information exchange each role must hold something of its own, and what one role was dealt must not
 * be in another's view. Lists of texts in the task are taken as hands that are dealt: a list of which one
 * role sees more than another leaks where the other sees a part of it. Throws where a view cannot be made.
 */
function checkViews(scenario: Scenario, tasks: readonly NamedTask[], error: Report, warning: Report): void {
  const roles = Object.keys(scenario.roles);
  const views = tasks.map(({ task }) => new Map(roles.map((role) => [role, toldTo(role, scenario, task)])));
  for (const [index, { id }] of tasks.entries()) {
    for (const [role, view] of views[index]!) {
      if (view.trim() === '') error('views', `${id}: role ${role} sees nothing.`);
      const slip = /\bundefined\b|\bNaN\b|\[object \w+\]/.exec(view)?.[0];
      if (slip !== undefined && !textsIn(tasks[index]!.task).some((text) => text.includes(slip)))
        warning(
          'views',
          `${id}: the view of ${role} says ${slip}: either the task lacks a field that is asked for, or those are its words.`,
        );
    }
  }
  if (scenario.kind !== 'information-exchange') return;
  /** Whether a role is told some of each task, and none of it alone. */
  const isToldAllOf = (role: string) =>
    tasks.every(({ task }, index) => {
      const told = textsIn(task).filter((text) => stands(text, views[index]!.get(role)!));
      const isOwn = (text: string) =>
        roles.every((other) => other === role || !stands(text, views[index]!.get(other)!));
      return told.length > 0 && !told.some(isOwn);
    });
  for (const role of roles) {
    const ownLines = (index: number) => {
      const others = roles.filter((other) => other !== role).map((other) => views[index]!.get(other)!);
      const lines = views[index]!.get(role)!.split('\n');
      return lines.filter((line) => !others.some((view) => view.split('\n').includes(line)));
    };
    // Lines that stand in every task's view are instructions, not knowledge.
    const first = new Set(ownLines(0));
    const knows =
      tasks.length > 1 && tasks.some((_, index) => ownLines(index).some((line) => !first.has(line)));
    // An environment may tell it what its view does not.
    if (!knows && scenario.environment === undefined)
      error('views', `role ${role} knows nothing that the others do not.`);
    else if (scenario.environment === undefined && isToldAllOf(role))
      warning(
        'views',
        `every text and number of the task that role ${role} is told, another role is told too.`,
      );
  }
  for (const [index, { id, task }] of tasks.entries()) {
    for (const [path, texts] of textLists(task)) {
      const seen = roles.map((role) => ({
        role,
        texts: texts.filter((text) => views[index]!.get(role)!.includes(text)),
      }));
      const holder = seen.reduce((most, other) => (other.texts.length > most.texts.length ? other : most));
      const leak = seen.find(
        (other) => other !== holder && other.texts.length > 0 && other.texts.length < holder.texts.length,
      );
      if (leak !== undefined) {
        error(
          'views',
          `${id}: task.${path} is dealt to ${holder.role}, but ${leak.role} sees ${JSON.stringify(leak.texts[0])} of it.`,
        );
      }
    }
  }
}

/** Lists of texts within a task, with where they stand. Short texts turn up anywhere and say nothing. */
function textLists(value: unknown, path = ''): [string, string[]][] {
  if (Array.isArray(value)) {
    const texts = value.filter((item) => typeof item === 'string' && item.length >= 8);
    if (texts.length > 0 && texts.length === value.length) return [[path, texts]];
    return value.flatMap((item, index) => textLists(item, `${path}.${index}`));
  }
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, item]) =>
    textLists(item, path === '' ? key : `${path}.${key}`),
  );
}

/** What a scenario cannot be held to whose environment may have a say in how a dialogue ends. */
const unlessReferee = ({ environment }: Scenario, error: Report, warning: Report): Report =>
  environment === undefined ? error : warning;

/** Lets a team of yes-sayers and a team of nay-sayers talk: the first must end in agreement, the second not. */
function checkProtocol(scenario: Scenario, { task }: NamedTask, error: Report, warning: Report): void {
  const { maxTurns } = scenario.protocol;
  const course = new Course(scenario, task);
  if (course.agreed([])) error('protocol', 'the team agrees before anybody has spoken.');
  const play = (text: string) => {
    let turns: readonly Turn[] = [];
    let next = course.next(turns);
    for (; typeof next !== 'string'; next = course.next(turns)) turns = course.record(turns, next, text);
    return { turns, end: next };
  };
  // Where no answer is right, agreement may be about anything.
  const [right] = scenario.answers(task);
  const yes = play(scenario.answer.example(right ?? 'yes'));
  if (right !== undefined && yes.end !== 'agreed') {
    const finding = unlessReferee(scenario, error, warning);
    finding(
      'protocol',
      `cannot end: all roles stated the same answer for ${yes.turns.length} turns without agreement.`,
    );
  }
  const nay = play('I do not know.');
  if (right !== undefined && nay.end === 'agreed') {
    warning('protocol', 'the team agrees although nobody stated an answer.');
  }
  const silent = Object.keys(scenario.roles).find((role) => !nay.turns.some((turn) => turn.speaker === role));
  if (nay.end === 'turn-cap' && silent !== undefined) {
    error('protocol', `role ${silent} never has the floor within ${maxTurns} turns.`);
  }
}

/** A metric that does not take the dialogue goes by the answer alone, and what it says can be foreseen. */
const goesByAnswer = ({ metric }: Scenario): boolean => metric.score.length < 3;

async function checkAnswers(
  scenario: Scenario,
  id: string,
  task: unknown,
  error: Report,
  warning: Report,
): Promise<void> {
  const { answer } = scenario;
  const answers = scenario.answers(task);
  if (answers.length === 0 && goesByAnswer(scenario)) error('answer', `${id}: answers() gives none.`);
  for (const text of answers) {
    const stated = answer.example(text);
    const read = answer.parse(stated);
    if (read !== text) {
      error(
        'answer',
        `${id}: "${stated}" is read back as ${JSON.stringify(read)}, not ${JSON.stringify(text)}.`,
      );
    }
    if (!goesByAnswer(scenario)) continue;
    const { score, exactMatch } = await scoreAnswer(scenario, task, text);
    if (score !== 1 || !exactMatch) {
      error(
        'metric',
        `${id}: the right answer ${JSON.stringify(text)} scores ${score}, exact match ${exactMatch}.`,
      );
    }
  }
  if (answer.parse('I do not know.') !== null) {
    warning('answer', 'a message without an answer is read as one: "I do not know."');
  }
  if (!goesByAnswer(scenario)) return;
  const { score: none } = await scoreAnswer(scenario, task, null);
  if (none !== 0) error('metric', `a dialogue without an answer scores ${none}, not 0.`);
  const { score: wrong } = await scoreAnswer(scenario, task, 'zzyzx');
  if (!(wrong >= 0 && wrong < 1)) error('metric', `the wrong answer "zzyzx" scores ${wrong}.`);
  for (const [role, { sees }] of Object.entries(scenario.roles)) {
    const told = answer.parse(sees(task));
    if (told !== null && (await scoreAnswer(scenario, task, told)).score === 1) {
      error('views', `${id}: the view of ${role} states the answer ${JSON.stringify(told)}.`);
    }
  }
}

const hanging = 'gives no score';

/** What a metric says of an answer. Rejects as `scoreDialogue` does, and where that takes longer than the metric may. */
async function scoreAnswer(scenario: Scenario, task: unknown, answer: string | null): Promise<Scored> {
  const stop = new AbortController();
  const judge = nobody('the answer alone is scored, and no judge is asked');
  const said = {
    task,
    turns: [],
    outcome: 'agreed' as const,
    answer,
    answers: scenario.answers(task),
    judge,
    signal: stop.signal,
  };
  const { name, timeoutMs = metricTimeoutMs } = scenario.metric;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new OptimaError('metric.failed', `metric ${name} ${hanging} within ${timeoutMs} ms`));
      stop.abort();
    }, timeoutMs);
  });
  try {
    return await Promise.race([scoreDialogue(scenario, said), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** A demonstration must be a dialogue that the protocol would let happen. */
function checkDemonstration(
  scenario: Scenario,
  id: string,
  task: unknown,
  seed: number,
  error: Report,
  warning: Report,
): void {
  if (scenario.demonstrate === undefined) return;
  const { maxTurns } = scenario.protocol;
  const given: unknown = scenario.demonstrate(task, createRng(seed).split('demonstrate').split(id));
  const turns = (given as Demonstration | undefined)?.turns;
  if (!Array.isArray(turns))
    throw new TypeError(`gave ${refused(given)}, not { turns: [{ speaker, text }, …] }`);
  const course = new Course(scenario, task);
  let said: readonly Turn[] = [];
  for (const [index, { speaker, text }] of turns.entries()) {
    if (typeof text !== 'string') throw new TypeError(`the text of turn ${index + 1} is ${refused(text)}`);
    const next = course.next(said);
    if (next === 'agreed') {
      warning('demonstrate', `${id}: goes on after the team agreed in turn ${index}.`);
      return;
    }
    const floor = next === 'turn-cap' ? course.floor(said) : next;
    if (speaker !== floor.speaker) {
      error('demonstrate', `${id}: turn ${index + 1} is by ${speaker}, but ${floor.speaker} has the floor.`);
      return;
    }
    said = course.record(said, floor, text);
  }
  if (turns.length > maxTurns) error('demonstrate', `${id}: is longer than ${maxTurns} turns.`);
  // A team may fail to agree, but not stop before its turns are used up.
  if (typeof course.next(said) !== 'string') {
    const { speaker } = course.floor(said);
    warning(
      'demonstrate',
      `${id}: stops after turn ${said.length} without agreement, and ${speaker} has the floor.`,
    );
  }
}

/**
 * Runs the real actors with a model that states the right answer: every dialogue must end in agreement and score 1. A metric that
 * takes the dialogue must give a score to a wrong answer, and to none, as well.
 */
async function playDialogues(
  scenario: Scenario,
  tasks: readonly NamedTask[],
  seed: number,
  judge: GenerativeModel | undefined,
  error: Report,
  unlessReferee: Report,
): Promise<void> {
  const rightAnswer = ({ task }: NamedTask) => scenario.answer.example(scenario.answers(task)[0] ?? 'yes');
  const play = async (named: NamedTask, message: string) => {
    const { id: taskId, task } = named;
    const tree = rootId('check', taskId);
    const episode = { id: childId(tree, 0), tree, taskId, task, format: null };
    const dialogue = runCohort([episode], {
      scenario,
      cast: everyRole(scenario, scriptedModel({ reply: () => message })),
      judge,
      sampling: { temperature: 0, topP: 1, topK: 0, maxTokens: 1024 },
      rng: createRng(seed),
    });
    return trajectoriesOf(dialogue);
  };
  const trajectories = (await Promise.all(tasks.map((named) => play(named, rightAnswer(named))))).flat();
  for (const { taskId, outcome, failure, verdict } of trajectories) {
    if (outcome !== 'failed' && !goesByAnswer(scenario)) continue;
    if (outcome !== 'agreed') {
      (outcome === 'failed' ? error : unlessReferee)(
        'dialogue',
        `${taskId}: stating the right answer ends as ${outcome}${failure ? `: ${failure.replace(/\.$/, '')}` : ''}.`,
      );
    } else if (verdict?.taskScore !== 1) {
      error('dialogue', `${taskId}: stating the right answer scores ${verdict?.taskScore}.`);
    }
  }
  if (goesByAnswer(scenario) || trajectories.some(({ outcome }) => outcome === 'failed')) return;
  for (const message of [scenario.answer.example('zzyzx'), 'I do not know.']) {
    for (const { taskId, failure } of await play(tasks[0]!, message))
      if (failure !== null)
        error('dialogue', `${taskId}: saying "${message}" fails: ${failure.replace(/\.$/, '')}.`);
  }
}

/** Whether two messages say the same of different tasks. */
function alike(a: string, b: string): boolean {
  const withoutTask = (text: string) => text.replace(/^\w+-\d+: /, '').replaceAll(/"[^"]*"/g, '""');
  return withoutTask(a) === withoutTask(b);
}
