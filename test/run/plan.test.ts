// From a recipe to the phases of a run: which there are, in what order, and what each goes by.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { PlannedPhases } from '../../src/machines/index.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings, recipeNames } from '../../src/recipe/schema.ts';
import { planIterations, planRun } from '../../src/run/plan.ts';
import { phaseOf } from '../support/plan.ts';

const exchange = { kind: 'information-exchange' } as const;
const debate = { kind: 'debate' } as const;

/** No two numbers are the same, so that each shows where it comes from. */
const recipe = applySettings(presetRecipe('quick'), [
  'iterations=2',
  'initialization.tasks=5',
  'initialization.samplesPerTask=11',
  'initialization.formats=true',
  'initialization.thetaInit=0.12',
  'initialization.keepFraction=0.13',
  'initialization.temperature=0.14',
  'isft.tasks=4',
  'isft.samplesPerTask=21',
  'isft.thetaSft=0.22',
  'isft.keepFraction=0.23',
  'isft.temperature=0.24',
  'evaluation.tasks=31',
  'evaluation.validationTasks=32',
]);
const changed = (...settings: string[]) => applySettings(recipe, settings);

const validation = (iteration: number, name: string) =>
  ({ kind: 'evaluate', name, iteration, policy: 'latest', split: 'validation', tasks: 32 }) as const;

/** The phases of an iteration after initialization. */
const later = (index: number, from: number, startFrom: 'base' | 'latest') => {
  const name = `isft-${index}`;
  const iteration = index;
  return [
    {
      kind: 'generate',
      name: `${name}/generate`,
      iteration,
      tasks: { from, count: 4 },
      samplesPerTask: 21,
      temperature: 0.24,
      formats: false,
    },
    { kind: 'rank', name: `${name}/rank`, iteration, dialogues: `${name}/generate` },
    {
      kind: 'select',
      name: `${name}/select`,
      iteration,
      ranking: `${name}/rank`,
      threshold: 0.22,
      thresholdKey: 'isft.thetaSft',
      keepFraction: 0.23,
    },
    {
      kind: 'train',
      name: `${name}/train`,
      iteration,
      startFrom,
      on: { method: 'sft', dialogues: `${name}/generate`, selection: `${name}/select` },
    },
    validation(index, `${name}/evaluate`),
  ] as const;
};

test('a run measures the base, initializes, iterates, and measures what is kept on the same test tasks', () => {
  assert.equal(planRun(recipe, exchange), [
    { kind: 'evaluate', name: 'base', iteration: null, policy: 'base', split: 'test', tasks: 31 },
    {
      kind: 'generate',
      name: 'init-0/generate',
      iteration: 0,
      tasks: { from: 0, count: 5 },
      samplesPerTask: 11,
      temperature: 0.14,
      formats: true,
    },
    { kind: 'rank', name: 'init-0/rank', iteration: 0, dialogues: 'init-0/generate' },
    {
      kind: 'select',
      name: 'init-0/select',
      iteration: 0,
      ranking: 'init-0/rank',
      threshold: 0.12,
      thresholdKey: 'initialization.thetaInit',
      keepFraction: 0.13,
    },
    {
      kind: 'train',
      name: 'init-0/train',
      iteration: 0,
      startFrom: 'base',
      on: { method: 'sft', dialogues: 'init-0/generate', selection: 'init-0/select' },
    },
    validation(0, 'init-0/evaluate'),
    ...later(1, 5, 'latest'),
    ...later(2, 9, 'latest'),
    { kind: 'evaluate', name: 'trained', iteration: null, policy: 'kept', split: 'test', tasks: 31 },
  ]);
});

const namedIn = ({ method, ...names }: PlannedPhases['train']['on']) => Object.values<string>(names);

test('names are unique, and phases name others that come before them', () => {
  for (const name of recipeNames) {
    const plan = planRun({ ...presetRecipe('quick', name), iterations: 12 }, exchange);
    const names = plan.map(({ name }) => name);
    assert.is(new Set(names).size, names.length);
    for (const [index, phase] of plan.entries()) {
      const named = [
        ...(phase.kind === 'rank' ? [phase.dialogues] : []),
        ...(phase.kind === 'select' ? [phase.ranking] : []),
        ...(phase.kind === 'search' ? [phase.pilot] : []),
        ...(phase.kind === 'pair' ? [phase.search] : []),
        ...(phase.kind === 'train' ? namedIn(phase.on) : []),
      ];
      for (const name of named) assert.ok(names.slice(0, index).includes(name), `${phase.name}: ${name}`);
    }
  }
});

test('the iterations of a plan are its phases, by their kind', () => {
  const iterations = planIterations(recipe, exchange);
  assert.equal(
    iterations.map(({ index, kind }) => [index, kind]),
    [
      [0, 'init'],
      [1, 'isft'],
      [2, 'isft'],
    ],
  );
  assert.equal(
    iterations.flatMap(({ phases }) => phases),
    planRun(recipe, exchange).slice(1, -1),
  );
});

test('no two iterations have a task in common, and none is left out', () => {
  const ranges = (...settings: string[]) =>
    planIterations(changed(...settings), exchange).map((one) => phaseOf(one, 'generate').tasks);
  assert.equal(ranges('iterations=3'), [
    { from: 0, count: 5 },
    { from: 5, count: 4 },
    { from: 9, count: 4 },
    { from: 13, count: 4 },
  ]);
  let next = 0;
  for (const { from, count } of ranges('iterations=9', 'initialization.tasks=17', 'isft.tasks=128')) {
    assert.is(from, next);
    next += count;
  }
});

test('a run whose roles have their own weights ends with these exchanged, on the same test tasks', () => {
  for (const name of recipeNames) {
    const shared = presetRecipe('quick', name);
    const plan = planRun(shared, exchange);
    assert.equal(planRun(applySettings(shared, ['policies=shared']), exchange), plan);
    const { tasks } = shared.evaluation;
    assert.equal(planRun(applySettings(shared, ['policies=per-role']), exchange), [
      ...plan,
      { kind: 'evaluate', name: 'swapped', iteration: null, policy: 'swapped', split: 'test', tasks },
    ]);
  }
});

test('without iterations a run initializes alone', () => {
  const plan = planRun(changed('iterations=0', 'evaluation.validationTasks=0'), exchange);
  assert.equal(
    plan.map(({ name }) => name),
    ['base', 'init-0/generate', 'init-0/rank', 'init-0/select', 'init-0/train', 'trained'],
  );
});

test('an iteration is evaluated where there are validation tasks, and nowhere else', () => {
  const without = changed('evaluation.validationTasks=0');
  assert.ok(planIterations(without, exchange).every(({ phases }) => phases.at(-1)!.kind === 'train'));
  assert.equal(
    planRun(without, exchange).flatMap((phase) => (phase.kind === 'evaluate' ? [phase.name] : [])),
    ['base', 'trained'],
  );
  const one = planRun(changed('evaluation.validationTasks=1'), exchange);
  assert.equal(
    one.flatMap((phase) => (phase.kind === 'evaluate' ? [[phase.name, phase.split, phase.tasks]] : [])),
    [
      ['base', 'test', 31],
      ['init-0/evaluate', 'validation', 1],
      ['isft-1/evaluate', 'validation', 1],
      ['isft-2/evaluate', 'validation', 1],
      ['trained', 'test', 31],
    ],
  );
});

test('fine-tuning starts from the base in debates, else from the latest policy, unless the recipe says', () => {
  const starts = (scenario: typeof exchange | typeof debate, ...settings: string[]) =>
    planIterations(changed(...settings), scenario).map((one) => phaseOf(one, 'train').startFrom);
  assert.is(recipe.isft.startFrom, null);
  assert.equal(starts(exchange), ['base', 'latest', 'latest']);
  assert.equal(starts(debate), ['base', 'base', 'base']);
  for (const scenario of [exchange, debate]) {
    assert.equal(starts(scenario, 'isft.startFrom=previous'), ['base', 'latest', 'latest']);
    assert.equal(starts(scenario, 'isft.startFrom=base'), ['base', 'base', 'base']);
  }
});

test('format prompts are for initialization alone, where the recipe has them', () => {
  const formats = (...settings: string[]) =>
    planIterations(changed(...settings), exchange).map((one) => phaseOf(one, 'generate').formats);
  assert.equal(formats(), [true, false, false]);
  assert.equal(formats('initialization.formats=false'), [false, false, false]);
});

test('iDPO searches with a pilot before, and trains on pairs from the policy that searched', () => {
  const idpo = applySettings(presetRecipe('quick', 'idpo'), [
    'iterations=2',
    'initialization.tasks=5',
    'search.tasks=30',
    'search.temperature=0.6',
    'search.pilotDialogues=100',
    'evaluation.validationTasks=0',
  ]);
  const plan = planIterations(idpo, debate);
  assert.equal(
    plan.map(({ kind }) => kind),
    ['init', 'idpo', 'idpo'],
  );
  const name = 'idpo-1';
  assert.equal(plan[1]!.phases, [
    {
      ...{ kind: 'generate', name: `${name}/pilot`, iteration: 1, tasks: { from: 5, count: 25 } },
      ...{ samplesPerTask: 4, temperature: 0.6, formats: false },
    },
    {
      kind: 'search',
      name: `${name}/search`,
      iteration: 1,
      tasks: { from: 5, count: 30 },
      pilot: `${name}/pilot`,
    },
    { kind: 'pair', name: `${name}/pair`, iteration: 1, search: `${name}/search` },
    {
      ...{ kind: 'train', name: `${name}/train`, iteration: 1, startFrom: 'latest' },
      on: { method: 'dpo', search: `${name}/search`, pairs: `${name}/pair` },
    },
  ]);
  assert.equal(phaseOf(plan[2]!, 'search').tasks, { from: 35, count: 30 });
  const few = applySettings(idpo, ['search.pilotDialogues=7']);
  const pilot = phaseOf(planIterations(few, debate)[1]!, 'generate');
  assert.equal([pilot.tasks.count, pilot.samplesPerTask], [7, 1]);
});

test('iSFT-DPO takes turns, iSFT first, and gives each its own tasks', () => {
  const hybrid = applySettings(presetRecipe('quick', 'isft-dpo'), [
    'iterations=4',
    'initialization.tasks=5',
    'isft.tasks=3',
    'search.tasks=2',
  ]);
  const plan = planIterations(hybrid, exchange);
  assert.equal(
    plan.map(({ kind, index }) => `${kind}-${index}`),
    ['init-0', 'isft-1', 'idpo-2', 'isft-3', 'idpo-4'],
  );
  assert.equal(
    plan.map((one) => (one.kind === 'idpo' ? phaseOf(one, 'search') : phaseOf(one, 'generate')).tasks),
    [
      { from: 0, count: 5 },
      { from: 5, count: 3 },
      { from: 8, count: 2 },
      { from: 10, count: 3 },
      { from: 13, count: 2 },
    ],
  );
});

test.run();
