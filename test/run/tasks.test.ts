// The tasks of a run: how many of each split, and the hash of what they say.
import { createHash } from 'node:crypto';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { createRng, type Rng } from '../../src/domain/rng.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings } from '../../src/recipe/schema.ts';
import { planIterations } from '../../src/run/plan.ts';
import { hashTasks, taskCounts } from '../../src/run/tasks.ts';
import {
  agreement,
  defineScenario,
  dialogue,
  f1,
  generated,
  type Split,
  tagged,
} from '../../src/scenario/index.ts';
import { loadTasks } from '../../src/scenario/tasks.ts';
import { phaseOf } from '../support/plan.ts';

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
  for (const iteration of planIterations(recipe, scenario)) {
    const { tasks: range } = phaseOf(iteration, 'generate');
    const tasks = await loadTasks(scenario, 'train', range, createRng(1));
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

test('tasks are the first of their split, under ids that say which, from the run’s generator for tasks', async () => {
  const asked: unknown[] = [];
  const watched = {
    ...scenario,
    tasks: {
      load: (split: Split, count: number, rng: Rng) => {
        asked.push([split, count]);
        return scenario.tasks.load(split, count, rng);
      },
    },
  };
  const all = await scenario.tasks.load('validation', 5, createRng(3).split('tasks'));
  const tasks = await loadTasks(watched, 'validation', { from: 2, count: 3 }, createRng(3));
  assert.equal(asked, [['validation', 5]]);
  assert.equal(
    tasks,
    [2, 3, 4].map((index) => ({ id: `validation-0000${index}`, task: all[index] })),
  );
});

test('a source that gives more tasks than asked for is refused, too', async () => {
  const long = { ...scenario, tasks: { load: async () => [1, 2, 3].map((n) => ({ n, m: n })) } };
  try {
    await loadTasks(long, 'test', { from: 1, count: 1 }, createRng(1));
    assert.unreachable();
  } catch (error) {
    assert.is((error as OptimaError).code, 'data.invalid');
    assert.match((error as OptimaError).message, `"numbers": tasks.load('test', 2) gave 3 tasks`);
  }
});

test('a run needs the training tasks of all its iterations, and the most of a split that one evaluation plays', () => {
  assert.equal(taskCounts(scenario, recipe), { train: 17, validation: 0, test: 2 });
  const counts = (...settings: string[]) => taskCounts(scenario, applySettings(recipe, settings));
  assert.equal(counts('iterations=0'), { train: 5, validation: 0, test: 2 });
  assert.equal(counts('iterations=1', 'isft.tasks=100'), { train: 105, validation: 0, test: 2 });
  assert.equal(counts('evaluation.validationTasks=3', 'evaluation.tasks=70'), {
    train: 17,
    validation: 3,
    test: 70,
  });
  assert.equal(counts('initialization.samplesPerTask=9', 'isft.samplesPerTask=9').train, 17);
});

test('the hash is SHA-256 over formats, and ids, plain views and answers of every task the run needs', async () => {
  const formats = [{ name: 'terse', prompt: 'Be terse.' }];
  const formatted = { ...scenario, formats };
  const plan = applySettings(recipe, ['evaluation.validationTasks=3', 'seed=7']);
  const lines = [JSON.stringify(formats)];
  for (const [split, count] of [
    ['train', 17],
    ['validation', 3],
    ['test', 2],
  ] as const) {
    const dealt = await loadTasks(scenario, split, { from: 0, count }, createRng(7));
    for (const { id, task } of dealt) {
      const { n, m } = task as { n: number; m: number };
      lines.push(JSON.stringify([id, [`n is ${n}`, `m is ${m}`], [String(n + m)]]));
    }
  }
  const sha = createHash('sha256').update(lines.join('\n')).digest('hex');
  assert.is(await hashTasks(formatted, plan), sha.slice(0, 16));
});

test('the hash of the tasks changes with the formats and with the last task of each split', async () => {
  const plan = applySettings(recipe, ['evaluation.validationTasks=3']);
  const lastOf = { train: 17, validation: 3, test: 2 };
  const changed = (changedSplit: Split) => ({
    ...scenario,
    tasks: {
      load: async (split: Split, count: number, rng: Rng) =>
        (await scenario.tasks.load(split, count, rng)).map((task, index) =>
          split === changedSplit && index === lastOf[split] - 1 ? { ...task, n: -1 } : task,
        ),
    },
  });
  const hashes = await Promise.all([
    hashTasks(scenario, plan),
    hashTasks({ ...scenario, formats: [{ name: 'terse', prompt: 'Be terse.' }] }, plan),
    hashTasks({ ...scenario, formats: [{ name: 'terse', prompt: 'Be brief.' }] }, plan),
    ...(['train', 'validation', 'test'] as const).map((split) => hashTasks(changed(split), plan)),
  ]);
  assert.is(new Set(hashes).size, 6);
});

test('a view or answers that cannot be written are scenario.invalid, with the task and the reason', async () => {
  const reason = new Error('no such word');
  const broken = {
    ...scenario,
    answers: () => {
      throw reason;
    },
  };
  try {
    await hashTasks(broken, recipe);
    assert.unreachable();
  } catch (error) {
    assert.is((error as OptimaError).code, 'scenario.invalid');
    assert.is(
      (error as OptimaError).message,
      'Scenario "numbers": task train-00000 cannot be dealt: no such word.',
    );
    assert.is((error as OptimaError).cause, reason);
  }
});

test('what the environment opens with is a part of the tasks', async () => {
  const say = (text: string) => ({ ...scenario, environment: { open: () => text } });
  const hashes = [scenario, say('one'), say('two')].map((one) => hashTasks(one, recipe));
  assert.is(new Set(await Promise.all(hashes)).size, 3);
  assert.is(await hashTasks({ ...scenario, environment: { open: () => null } }, recipe), await hashes[0]);
});

test.run();
