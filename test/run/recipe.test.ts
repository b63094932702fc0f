import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { presetNames, presetRecipe } from '../../src/run/presets.ts';
import { applySettings, recipeKeys, recipeSchema } from '../../src/run/recipe.ts';

const quick = presetRecipe('quick');

function refusal(setting: string): OptimaError {
  try {
    applySettings(quick, [setting]);
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.is((error as OptimaError).code, 'usage');
    return error as OptimaError;
  }
  throw new Error(`${setting} was taken.`);
}

test('every preset is a complete recipe', () => {
  for (const name of presetNames) assert.equal(recipeSchema.parse(presetRecipe(name)), presetRecipe(name));
});

test('there is a preset for each data set of the paper, with its values', () => {
  assert.equal(
    presetNames.filter((name) => name.startsWith('paper:')),
    ['hotpot', '2wmh', 'trivia', 'cbt', 'math', 'gsm8k', 'arc-c', 'mmlu'].map((name) => `paper:${name}`),
  );
  const gsm8k = presetRecipe('paper:gsm8k');
  assert.is(gsm8k.sft.learningRate, 2e-6);
  assert.is(gsm8k.sft.batchSize, 16);
  assert.is(gsm8k.isft.startFrom, 'base');
  assert.is(gsm8k.initialization.formats, false);
  const trivia = presetRecipe('paper:trivia');
  assert.is(trivia.isft.thetaSft, 0.6);
  assert.is(trivia.isft.startFrom, 'previous');
  assert.is(presetRecipe('paper:arc-c').reward.lambdaLoss, 0.6);
});

test('settings change what they name and nothing else', () => {
  const changed = applySettings(quick, [
    'isft.tasks=7',
    'reward.lambdaToken=null',
    'sft.learningRate=1e-3',
    'isft.startFrom=base',
    'eligible.turnCap=false',
    'seed=5',
  ]);
  assert.equal(changed, {
    ...quick,
    seed: 5,
    isft: { ...quick.isft, tasks: 7, startFrom: 'base' },
    reward: { ...quick.reward, lambdaToken: null },
    sft: { ...quick.sft, learningRate: 1e-3 },
    eligible: { ...quick.eligible, turnCap: false },
  });
});

test('the last of two settings of one key counts, and the preset stays as it was', () => {
  const before = structuredClone(quick);
  assert.is(applySettings(quick, ['isft.tasks=7', 'isft.tasks=9']).isft.tasks, 9);
  assert.equal(quick, before);
});

test('an unknown key is refused with the nearest one', () => {
  assert.match(refusal('isft.taks=3').hint!, '"isft.tasks"');
  assert.match(refusal('lambdaToken=1').hint!, '"reward.lambdaToken"');
  assert.match(refusal('isft=3').hint!, 'isft.thetaSft');
  assert.match(refusal('zzzzzzzz=3').hint!, '--help');
  assert.match(refusal('isft.tasks').message, 'key=value');
});

test('a value of another type is refused with what the key takes', () => {
  for (const [setting, type] of [
    ['isft.tasks=abc', 'a whole number of at least 1'],
    ['isft.tasks=1.5', 'a whole number of at least 1'],
    ['isft.tasks=0', 'a whole number of at least 1'],
    ['isft.tasks=', 'a whole number of at least 1'],
    ['isft.tasks=null', 'a whole number of at least 1'],
    ['isft.keepFraction=2', 'above 0 and at most 1'],
    ['isft.startFrom=begin', 'previous or base'],
    ['eligible.turnCap=maybe', 'true or false'],
    ['reward.lambdaLoss=-1', 'a number of at least 0, or null'],
    ['sft.learningRate=NaN', 'a number above 0'],
    ['seed=4294967296', 'at most 4294967295'],
  ] as const) {
    const { message } = refusal(setting);
    assert.match(message, `--set ${setting}: ${setting.split('=')[0]} must be `);
    assert.match(message, type);
  }
});

test('choosing by validation needs validation tasks', () => {
  assert.match(refusal('keep=best-validation').hint!, 'evaluation.validationTasks');
  const settings = ['evaluation.validationTasks=10', 'keep=best-validation'];
  assert.is(applySettings(quick, settings).keep, 'best-validation');
});

test('every key is documented', () => {
  for (const { key, description } of recipeKeys) assert.ok(description.length > 10, key);
});

test('an unknown preset is refused with the nearest one', () => {
  assert.throws(
    () => presetRecipe('papr:mmlu'),
    (error: OptimaError) => error.code === 'usage' && error.hint!.includes('paper:mmlu'),
  );
});

test.run();
