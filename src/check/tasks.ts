// What `optima check` asks of tasks and views: that they are the same whenever they are dealt, that the answer follows from them,
// and that those who answer are told its form.

import { messageOf } from '../domain/errors.ts';
import { taskId } from '../domain/ids.ts';
import { createRng } from '../domain/rng.ts';
import { viewOf } from '../domain/transcript.ts';
import { Course } from '../scenario/course.ts';
import { loadTasks, type NamedTask } from '../scenario/tasks.ts';
import type { Scenario, Split } from '../scenario/types.ts';

export type Report = (check: string, message: string) => void;

/** All that a role is told before the first turn. */
export function toldTo(role: string, scenario: Scenario, task: unknown): string {
  const view = viewOf(role, new Course(scenario, task).deal(), []);
  return view.map(({ content }) => content).join('\n');
}

/** The texts and numbers in a value, at any depth. */
export const textsIn = (value: unknown): string[] =>
  typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : [String(value)];

/** Whether a text stands in another, not within a word or a number. */
export function stands(text: string, within: string): boolean {
  const inWord = (character: string | undefined) =>
    character !== undefined && /[\p{L}\p{N}]/u.test(character);
  for (let at = within.indexOf(text); at >= 0 && text !== ''; at = within.indexOf(text, at + 1)) {
    if (!inWord(within[at - 1]) && !inWord(within[at + text.length])) return true;
  }
  return false;
}

/** What must give the same whenever it is asked: the functions of a scenario that see a task, by how they are written there. */
function functionsOf(scenario: Scenario): [string, (task: unknown) => unknown][] {
  const { roles, environment, answers, demonstrate } = scenario;
  return [
    ...Object.entries(roles).map(([role, { sees }]): [string, (task: unknown) => unknown] => [
      `roles.${role}.sees`,
      sees,
    ]),
    ['answers', (task) => answers(task)],
    ['environment.open', (task) => environment?.open?.({ task, turns: [] })],
    ['demonstrate', (task) => demonstrate?.(task, createRng(1))],
  ];
}

/** Asks each function twice about a task, and listens for what it must not ask: chance and the clock. */
export function checkRepeats(scenario: Scenario, { id, task }: NamedTask, error: Report): void {
  for (const [name, ask] of functionsOf(scenario)) {
    const { result, called } = listened(() => JSON.stringify(ask(task)));
    const again = JSON.stringify(ask(task));
    if (called.length === 0 && result === again) continue;
    const fault = called.length > 0 ? `calls ${called.join(' and ')}` : 'does not give the same twice';
    error(
      'tasks',
      `${id}: ${name} ${fault}: draw from the rng of \`tasks\`, and let the rest follow from the task.`,
    );
  }
}

/** Compares what is dealt with what the scenario deals when its modules are run anew: they may have drawn by chance. */
export async function checkReload(scenario: Scenario, again: Scenario, seed: number): Promise<string | null> {
  const count = 10;
  const said = async (scenario: Scenario) =>
    (await loadTasks(scenario, 'train', { from: 0, count }, createRng(seed))).map(({ task }) =>
      JSON.stringify([new Course(scenario, task).deal(), scenario.answers(task)]),
    );
  const [once, twice] = [await said(scenario), await said(again)];
  const other = once.findIndex((text, index) => text !== twice[index]);
  if (other < 0) return null;
  return `${taskId('train', other)}: loaded again, the scenario deals another task: its modules must not draw from Math.random or the clock as they load.`;
}

/** What a function gives, and which of the sources of chance it called meanwhile. */
function listened<Result>(run: () => Result): { result: Result; called: string[] } {
  const called = new Set<string>();
  const real = { random: Math.random, now: Date.now };
  Math.random = () => {
    called.add('Math.random');
    return real.random();
  };
  Date.now = () => {
    called.add('Date.now');
    return real.now();
  };
  try {
    return { result: run(), called: [...called] };
  } finally {
    Math.random = real.random;
    Date.now = real.now;
  }
}

/** What `read` gives; an error that it throws names the task. */
function readOf<Value>({ id }: NamedTask, read: () => Value): Value {
  try {
    return read();
  } catch (error) {
    throw new Error(`${id}: ${messageOf(error)}`, { cause: error });
  }
}

/** Tasks that are compared for views that do not tell them apart. */
const compared = 200;

/**
 * Whether the answer can follow from the views. Certain where two tasks look the same to all and have different answers; a guess,
 * and said as one, where answers in words stand in no view. Throws an error with the task's id where a view or an answer cannot
 * be made.
 */
export async function checkSolvable(
  scenario: Scenario,
  seed: number,
  error: Report,
  warning: Report,
): Promise<void> {
  // What an environment would answer is anybody's guess.
  if (scenario.environment?.respond !== undefined) return;
  const tasks = await dealUpTo(compared, scenario, seed);
  const known = new Map<string, { readonly id: string; readonly answer: string }>();
  let unseen = 0;
  const different = new Set<string>();
  for (const named of tasks) {
    const { id, task } = named;
    const [answer] = readOf(named, () => scenario.answers(task));
    if (answer === undefined) return;
    different.add(answer);
    const views = readOf(named, () =>
      Object.keys(scenario.roles).map((role) => toldTo(role, scenario, task)),
    );
    const all = views.join('\n');
    const earlier = known.get(all);
    if (earlier !== undefined && earlier.answer !== answer) {
      error(
        'views',
        `${earlier.id} and ${id} look the same to every role, but their answers are "${earlier.answer}" and "${answer}": no team can know which.`,
      );
      return;
    }
    known.set(all, { id, answer });
    const isNumber = /^[-+\d.,\s%]+$/u.test(answer);
    const said = all.toLowerCase();
    // Of a list each item may stand elsewhere.
    const words = answer
      .toLowerCase()
      .split(/[\s,;>→]+/u)
      .filter(Boolean);
    if (!(isNumber ? /\d/u.test(all) : words.every((word) => said.includes(word)))) unseen++;
  }
  if (unseen > 0.8 * tasks.length && different.size > 0.1 * tasks.length) {
    warning(
      'views',
      `the answer stands in no view in ${unseen} of ${tasks.length} tasks (such as "${[...different][0]}"): if it cannot be worked out from them either, no team can know it.`,
    );
  }
}

/** Whether tasks that a team is tested on are among those it is trained on: what was learnt by heart would score. Throws as `checkSolvable`. */
export async function checkSplits(scenario: Scenario, seed: number, warning: Report): Promise<void> {
  const [train, test] = [
    await dealUpTo(compared, scenario, seed),
    await dealUpTo(compared, scenario, seed, 'test'),
  ];
  // What an environment knows stands in no view; without one, what is not told makes no difference.
  const contentOf = (named: NamedTask) =>
    readOf(named, () =>
      scenario.environment === undefined
        ? JSON.stringify([new Course(scenario, named.task).deal(), scenario.answers(named.task)])
        : textsIn(named.task).join('\n'),
    );
  const known = new Set(train.map(contentOf));
  const seen = test.filter((named) => known.has(contentOf(named))).length;
  if (seen > 0.2 * test.length)
    warning(
      'tasks',
      `${seen} of ${test.length} test tasks are among the first ${train.length} training tasks, too: what was learnt by heart scores there. Make more different ones, or give each to one split: splitOf(text).`,
    );
}

/** As many tasks as a split has, at most `most`: a small file has fewer. */
async function dealUpTo(
  most: number,
  scenario: Scenario,
  seed: number,
  split: Split = 'train',
): Promise<NamedTask[]> {
  try {
    return await loadTasks(scenario, split, { from: 0, count: most }, createRng(seed));
  } catch {
    return most <= 1 ? [] : dealUpTo(Math.floor(most / 2), scenario, seed, split);
  }
}

/** Whether those whose answer counts are told how it is written, where the parser asks for marks of its own. */
export function checkForm(scenario: Scenario, { task }: NamedTask, warning: Report): void {
  const { roles, protocol, answer } = scenario;
  const [before = '', after = ''] = answer.example('\u0000').split('\u0000');
  const marks = [before, after].map((mark) => mark.replace(/[\s:]+$/u, '').trim()).filter(Boolean);
  // Where no answer is right, the metric goes by something else.
  if (marks.length === 0 || scenario.answers(task).length === 0) return;
  for (const role of protocol.answeredBy ?? Object.keys(roles)) {
    const told = toldTo(role, scenario, task).toLowerCase();
    if (marks.some((mark) => told.includes(mark.toLowerCase()))) continue;
    warning(
      'views',
      `the view of ${role} never says how an answer is written: ${answer.example('…')}. A model that was not trained on this form will not guess it.`,
    );
  }
}
