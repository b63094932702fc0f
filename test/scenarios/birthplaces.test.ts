import { test } from 'uvu';
import * as assert from 'uvu/assert';
import scenario from '../../scenarios/birthplaces.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { Split } from '../../src/scenario/index.ts';

const rng = createRng(12);
const dealt = (split: Split) => scenario.tasks.load(split, 300, rng);
const tasks = await dealt('train');
const namesIn = (tasks: Awaited<ReturnType<typeof dealt>>) =>
  new Set(tasks.flatMap(({ owners }) => owners.flatMap(({ person, thing, city }) => [person, thing, city])));

test('what a held-out task names was never named in training', async () => {
  const names = namesIn(tasks);
  for (const split of ['validation', 'test'] as const) {
    for (const name of namesIn(await dealt(split))) assert.not(names.has(name), name);
  }
});

test('the answer takes one fact of either role, and every other fact is a look-alike', () => {
  for (const task of tasks) {
    const { owners, births, wanted } = task;
    assert.is(owners.length, 5);
    const owner = owners.find(({ thing }) => thing === wanted.thing)!.person;
    assert.is(births.find(({ person }) => person === owner)!.city, scenario.answers(task)[0]);
    for (const part of ['person', 'thing', 'city'] as const) {
      assert.is(new Set(owners.map((row) => row[part])).size, 5);
    }
    const [bob, alice] = (['bob', 'alice'] as const).map((role) => scenario.roles[role].sees(task));
    assert.ok(bob!.includes(`The ${wanted.thing} belongs to ${owner}.`) && !bob!.includes(wanted.city));
    assert.ok(
      alice!.includes(`${owner} was born in ${wanted.city}.`) && !alice!.includes(`The ${wanted.thing}`),
    );
  }
});

test('a message states the one city that it names, and none where it names several', () => {
  assert.is(scenario.answer.parse('So the owner was born in Oslo.'), 'Oslo');
  assert.is(scenario.answer.parse('Oslo, I think: yes, Oslo'), 'Oslo');
  assert.is(scenario.answer.parse('Oslo or Rome'), null);
  assert.is(scenario.answer.parse('I do not know.'), null);
});

test('the untrained team is mostly wordy, and where it recites it answers for whom it named first', async () => {
  const tasks = await scenario.tasks.load('train', 3000, rng);
  let wordy = 0;
  let hasty = 0;
  for (const [index, task] of tasks.entries()) {
    const { turns } = scenario.demonstrate!(task, rng.split(index));
    const [bob, alice] = turns.map(({ text }) => text);
    const stated = scenario.answer.parse(alice!);
    const named = bob!.match(/belongs to/g)?.length ?? 0;
    if (bob!.length > 60) wordy++;
    if (named > 1) hasty++;
    const answered = named > 1 ? task.owners[0]! : task.wanted;
    assert.is(stated, task.births.find(({ person }) => person === answered.person)!.city);
  }
  /** Within four standard deviations of the mean of `trials` draws. */
  const isShare = (hits: number, trials: number, share: number) =>
    Math.abs(hits / trials - share) < 4 * Math.sqrt((share * (1 - share)) / trials);
  assert.ok(isShare(wordy, tasks.length, 0.7), `${wordy} wordy of ${tasks.length}`);
  assert.ok(isShare(hasty, wordy, 0.6), `${hasty} hasty of ${wordy}`);
});

test.run();
