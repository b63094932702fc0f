import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { LoraConfig } from '../../src/domain/lora.ts';
import { loraFrom, loraOf, requireTrainable } from '../../src/recipe/lora.ts';
import { presetNames, presetRecipe, recipeNamed } from '../../src/recipe/presets.ts';
import {
  applySettings,
  type RecipeName,
  recipeKeys,
  recipeNames,
  recipeSchema,
} from '../../src/recipe/schema.ts';

const quick = presetRecipe('quick');
const keys = recipeKeys(quick.recipe);

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
  for (const name of presetNames) {
    for (const recipe of recipeNames) {
      const preset = presetRecipe(name, recipe);
      assert.is(preset.recipe, recipe);
      assert.equal(recipeSchema.parse(preset), preset);
    }
  }
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
  for (const { key, description } of keys) assert.ok(description.length > 10, key);
});

test('an unknown preset is refused with the nearest one', () => {
  assert.throws(
    () => presetRecipe('papr:mmlu'),
    (error: OptimaError) => error.code === 'usage' && error.hint!.includes('paper:mmlu'),
  );
});

const count = ['a whole number of at least 1', ['1', '1000000'], ['0', '1.5']] as const;
const countOrNone = ['a whole number of at least 0', ['0', '7'], ['-1', '0.5']] as const;
const share = ['a number above 0 and at most 1', ['0.001', '1'], ['0', '1.001']] as const;
const part = ['a number of at least 0 and at most 1', ['0', '1'], ['-0.001', '1.001']] as const;
const memory = ['a number of at least 0 and below 1', ['0', '0.999'], ['-0.001', '1']] as const;
const positive = ['a number above 0', ['1e-9', '1e9'], ['0', '-1', 'null', 'Infinity']] as const;
const weight = ['a number of at least 0, or null', ['0', '1e9', 'null'], ['-1e-9', 'none']] as const;
const any = ['a number', ['-100', '0', '0x10'], ['null', 'true', '']] as const;
const warmth = ['a number of at least 0 and at most 5', ['0', '5'], ['-0.1', '5.1']] as const;
const yesOrNo = ['true or false', ['true', 'false'], ['1', 'yes', 'null']] as const;

/** Every key: what it may be in words, values it takes and values it does not. */
const takes: Record<string, readonly [string, readonly string[], readonly string[]]> = {
  recipe: ['isft', ['isft'], ['idpo']],
  seed: [
    'a whole number of at least 0 and at most 4294967295',
    ['0', '4294967295'],
    ['-1', '4294967296', '0.5'],
  ],
  iterations: countOrNone,
  'initialization.tasks': count,
  'initialization.samplesPerTask': count,
  'initialization.formats': yesOrNo,
  'initialization.thetaInit': any,
  'initialization.keepFraction': share,
  'initialization.temperature': warmth,
  'isft.tasks': count,
  'isft.samplesPerTask': count,
  'isft.thetaSft': any,
  'isft.keepFraction': share,
  'isft.temperature': warmth,
  'isft.startFrom': ['previous or base, or null', ['previous', 'base', 'null'], ['last', '0']],
  policies: ['shared or per-role', ['shared', 'per-role'], ['per-agent', 'null']],
  'reward.lambdaToken': weight,
  'reward.lambdaLoss': weight,
  'reward.lossFloor': positive,
  'eligible.emptyMessage': yesOrNo,
  'eligible.repetition': yesOrNo,
  'eligible.cappedMessage': yesOrNo,
  'eligible.turnCap': yesOrNo,
  'lora.rank': count,
  'lora.alpha': positive,
  'lora.dropout': ['a number of at least 0 and below 1', ['0', '0.999'], ['-0.001', '1', 'null']],
  'lora.recompute': yesOrNo,
  'lora.targets': [
    'all-linear, attention, or names such as q_proj,v_proj',
    ['attention', 'all-linear', 'down_proj,q_proj'],
    ['all', 'q_proj;v_proj', 'lm_head', '', '1'],
  ],
  'sft.learningRate': positive,
  'sft.epochs': count,
  'sft.batchSize': count,
  'sft.warmupFraction': part,
  'sft.floorFraction': part,
  'sft.weightDecay': ['a number of at least 0', ['0', '0.1'], ['-0.1', 'null']],
  'sft.clipNorm': positive,
  'sft.beta1': memory,
  'sft.beta2': memory,
  'sft.epsilon': positive,
  'sft.maxSequenceTokens': count,
  'sft.tokensPerPass': count,
  maxMessageTokens: ['a whole number of at least 1, or null', ['1', 'null'], ['0', '1.5']],
  'evaluation.tasks': count,
  'evaluation.validationTasks': countOrNone,
  keep: ['last or best-validation', ['last', 'best-validation'], ['best', 'null']],
  concurrency: count,
};

const at = (recipe: unknown, key: string): unknown =>
  key.split('.').reduce((group, name) => (group as Record<string, unknown>)[name], recipe);

test('every key takes what it says, at its bounds too, changes nothing else, and refuses the rest', () => {
  assert.equal(
    keys.map(({ key, type }) => [key, type]),
    Object.entries(takes).map(([key, [type]]) => [key, type]),
  );
  // With an adapter, whose keys have no values without.
  const validated = applySettings(quick, ['evaluation.validationTasks=3', 'lora.rank=16']);
  for (const [key, [type, taken, refused]] of Object.entries(takes)) {
    for (const text of taken) {
      const changed = applySettings(validated, [`${key}=${text}`]);
      const value = /^(null|true|false|-?[\d.]+(e-?\d+)?)$/.test(text) ? JSON.parse(text) : text;
      assert.is(at(changed, key), text === '0x10' ? 16 : value, `${key}=${text}`);
      const differing = keys.filter((other) => at(changed, other.key) !== at(validated, other.key));
      assert.ok(
        differing.every((other) => other.key === key),
        `${key} changes ${differing.map((other) => other.key)}`,
      );
    }
    for (const text of refused) {
      const { message, hint } = refusal(`${key}=${text}`);
      assert.is(message, `--set ${key}=${text}: ${key} must be ${type}.`);
      assert.is(hint, keys.find((other) => other.key === key)!.description);
    }
  }
});

test('an adapter is trained once a key of it is set, and what is not set is what it is by default', () => {
  assert.not.ok('lora' in quick);
  assert.is(loraOf(quick), undefined);
  const { lora } = applySettings(quick, ['lora.dropout=0.5']);
  assert.equal(lora, { rank: 16, alpha: 32, dropout: 0.5, recompute: false, targets: 'all-linear' });
  const named = loraOf(applySettings(quick, ['lora.rank=2', 'lora.targets=v_proj,q_proj']))!;
  assert.equal(named, { rank: 2, alpha: 32, dropout: 0, recompute: false, targets: ['q_proj', 'v_proj'] });
  assert.equal(recipeSchema.parse(JSON.parse(JSON.stringify(quick))), quick);
  assert.is(loraFrom([]), undefined);
  assert.equal(loraFrom(['lora.rank=2', 'lora.targets=v_proj,q_proj']), named);
  assert.throws(() => loraFrom(['lora.rank=2', 'seed=3']), /--set seed=3: only keys of lora/);
});

test('a base with an adapter is trained as what it is, or not at all', () => {
  const has: LoraConfig = {
    rank: 4,
    alpha: 4,
    rankStabilized: true,
    dropout: 0,
    targets: ['q_proj', 'v_proj'],
  };
  const mostRank = () => 24;
  const plain = { lora: null, mostRank };
  const ofLora = (...settings: string[]) => applySettings(quick, settings);
  requireTrainable(plain, undefined);
  requireTrainable(plain, loraOf(ofLora('lora.rank=3')));
  const otherwise = ['lora.rank=4', 'lora.alpha=8', 'lora.targets=q_proj,v_proj', 'lora.dropout=0.1'];
  requireTrainable({ lora: has, mostRank }, loraOf(ofLora(...otherwise)));
  for (const [recipe, words] of [
    [quick, 'trains all weights'],
    [ofLora('lora.rank=3'), 'trains one of another kind'],
    [ofLora('lora.rank=4', 'lora.alpha=8', 'lora.targets=q_proj'), 'trains one of another kind'],
    [ofLora('lora.rank=4', 'lora.alpha=9', 'lora.targets=q_proj,v_proj'), 'another kind'],
  ] as const) {
    try {
      requireTrainable({ lora: has, mostRank }, loraOf(recipe));
      assert.unreachable();
    } catch (error) {
      const { code, message, hint } = error as OptimaError;
      assert.is(code, 'usage');
      assert.match(message, words);
      const settings = [...hint!.matchAll(/--set (\S*[^\s,])/g)].map(([, setting]) => setting!);
      requireTrainable({ lora: has, mostRank }, loraFrom(settings));
    }
  }
});

test('what a hint says of an adapter is taken, whatever alpha rounds to; a rank beyond the matrices is not', () => {
  const mostRank = () => 24;
  for (let rank = 1; rank <= 24; rank++) {
    const has: LoraConfig = { rank, alpha: 32, rankStabilized: true, dropout: 0, targets: ['q_proj'] };
    const alpha = rank * (32 / Math.sqrt(rank));
    const same = ['lora.targets=q_proj', `lora.rank=${rank}`, `lora.alpha=${alpha}`];
    requireTrainable({ lora: has, mostRank }, loraFrom(same));
  }
  assert.throws(
    () => requireTrainable({ lora: null, mostRank }, loraFrom(['lora.rank=25'])),
    /lora\.rank 25: the model has a matrix of which 24 is the most\./,
  );
});

test('which recipe it is decides what keys there are: one that is none is refused', () => {
  assert.equal(recipeKeys('isft'), keys);
  assert.is(keys[0]!.key, 'recipe');
  for (const [recipe, missing] of [
    ['idpo', ['search', 'pairs', 'dpo', '']],
    ['', ['recipe']],
    [null, ['recipe']],
    [undefined, ['recipe']],
  ] as const) {
    const { success, error } = recipeSchema.safeParse({ ...quick, recipe });
    assert.not.ok(success);
    assert.equal(
      error!.issues.map(({ path }) => path.join('.')),
      missing,
    );
  }
  const keysOf = (recipe: RecipeName) => recipeKeys(recipe).map(({ key }) => key);
  assert.ok(keysOf('idpo').includes('search.expansions') && !keysOf('idpo').includes('isft.tasks'));
  const all = new Set([...keysOf('isft'), ...keysOf('idpo')]);
  assert.equal([...keysOf('isft-dpo')].sort(), [...all].sort());
  assert.is(recipeNamed('isft-dpo'), 'isft-dpo');
  assert.throws(
    () => recipeNamed('isft-dp'),
    (error: OptimaError) => error.code === 'usage' && error.hint === 'Did you mean "isft-dpo"?',
  );
});

test('a recipe has these keys and no others, in every group', () => {
  assert.not.ok(recipeSchema.safeParse({ ...quick, extra: 1 }).success);
  for (const [name, group] of Object.entries(quick)) {
    assert.not.ok(recipeSchema.safeParse({ ...quick, [name]: undefined }).success, name);
    if (typeof group !== 'object' || group === null) continue;
    assert.not.ok(recipeSchema.safeParse({ ...quick, [name]: { ...group, extra: 1 } }).success, name);
    for (const part of Object.keys(group)) {
      const without = { ...group, [part]: undefined };
      assert.not.ok(recipeSchema.safeParse({ ...quick, [name]: without }).success, `${name}.${part}`);
    }
  }
});

test('a setting may have spaces around key and value, and only its first = divides them', () => {
  assert.is(applySettings(quick, [' isft.tasks = 7 ']).isft.tasks, 7);
  assert.is(refusal('keep=last=best').message, '--set keep=last=best: keep must be last or best-validation.');
  assert.is(refusal('=1').message, '--set =1: the recipe has no key "".');
  assert.is(refusal('isft.tasks').message, '--set isft.tasks: not of the form key=value.');
});

test('the nearest key is named whole, a group by its keys', () => {
  assert.is(refusal('thetaSft=1').hint, 'Did you mean "isft.thetaSft"?');
  assert.is(refusal('tasks=1').hint, 'Did you mean "initialization.tasks"?');
  assert.is(refusal('concurency=1').hint, 'Did you mean "concurrency"?');
  assert.is(refusal('evaluation=1').hint, 'It is a group: evaluation.tasks, evaluation.validationTasks.');
  assert.is(refusal('qqqqqq=1').hint, '`optima train --help` lists the keys.');
});

test('conditions between keys are seen once all settings are made, in either order', () => {
  const { message, hint } = refusal('keep=best-validation');
  assert.is(message, 'keep=best-validation needs evaluation.validationTasks above 0.');
  assert.is(hint, 'Add --set evaluation.validationTasks=100.');
  for (const settings of [
    ['evaluation.validationTasks=1', 'keep=best-validation'],
    ['keep=best-validation', 'evaluation.validationTasks=1'],
  ]) {
    assert.is(applySettings(quick, settings).keep, 'best-validation');
  }
});

test('a key of another recipe is named as one', () => {
  assert.is(refusal('search.tasks=3').hint, 'It is a key of idpo and isft-dpo: add --recipe idpo.');
});

test.run();
