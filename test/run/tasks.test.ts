// Which tasks a run takes and where its fine-tunings start: the plan of a run.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { createRng } from '../../src/domain/rng.ts';
import { planIterations, startsFromBase } from '../../src/run/iterations.ts';
import { presetRecipe } from '../../src/run/presets.ts';
import { applySettings } from '../../src/run/recipe.ts';
import { hashTasks, loadTasks, trainingTasks } from '../../src/run/tasks.ts';
import { agreement, defineScenario, dialogue, f1, generated, tagged } from '../../src/scenario/index.ts';

const recipe = applySettings(presetRecipe('quick'), [
  'iterations=3',
  'initialization.tasks=5',
  'isft.tasks=4',
  'evaluation.tasks=2',
]);
const scenario = defineScenario({
  name: 'numbers',
  kind: 'information-exchange',
  description: '',
  tasks: generated((rng) => ({ n: rng.int(1000), m: rng.int(1000) })),
  roles: { alice: { sees: (task) => `n is ${task.n}` }, bob: { sees: (task) => `m is ${task.m}` } },
  protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
  answer: tagged('A'),
  answers: (task) => [String(task.n + task.m)],
  metric: f1,
  reward: { lambdaToken: 0.6, lambdaLoss: 0.1 },
  formats: [],
});

test('no two iterations have a task in common, and none is left out', async () => {
  const ids = [];
  for (const iteration of planIterations(recipe)) {
    const tasks = await loadTasks(scenario, 'train', trainingTasks(recipe, iteration), createRng(1));
    ids.push(...tasks.map(({ id }) => Number(id.split('-')[1])));
  }
  assert.equal(
    ids,
    Array.from({ length: 17 }, (_, index) => index),
  );
});

test('a source that gives fewer tasks than asked for is refused', async () => {
  const short = { ...scenario, tasks: { load: async () => [{ n: 1, m: 1 }] } };
  try {
    await hashTasks(short, recipe);
    assert.unreachable();
  } catch (error) {
    assert.is((error as OptimaError).code, 'data.invalid');
    assert.match((error as OptimaError).message, "tasks.load('train', 17) gave 1 tasks");
  }
});

test('the hash of the tasks changes with the seed, the views and the answers, and with nothing else', async () => {
  const hash = await hashTasks(scenario, recipe);
  assert.is(await hashTasks({ ...scenario, description: 'Other words.' }, recipe), hash);
  const others = [
    hashTasks(scenario, { ...recipe, seed: 2 }),
    hashTasks({ ...scenario, answers: () => ['7'] }, recipe),
    hashTasks({ ...scenario, roles: { ...scenario.roles, bob: { sees: () => 'm' } } }, recipe),
  ];
  assert.is(new Set([hash, ...(await Promise.all(others))]).size, 4);
});

test('fine-tuning starts from the base in debates, else from the previous policy, unless the recipe says', () => {
  const [init, first] = planIterations(recipe);
  assert.ok(startsFromBase(init!, recipe, 'information-exchange'));
  assert.not.ok(startsFromBase(first!, recipe, 'information-exchange'));
  assert.ok(startsFromBase(first!, recipe, 'debate'));
  assert.not.ok(startsFromBase(first!, applySettings(recipe, ['isft.startFrom=previous']), 'debate'));
});

test.run();
