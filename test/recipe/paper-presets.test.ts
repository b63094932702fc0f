// The paper's presets, against its table written down a second time: Chen et al., arXiv 2410.08115v2, Table 8, and
// what paper.ts says of the authors' code (tasks, samples, temperatures), of §3.3 and of §4.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { paperDataSets, paperRecipe } from '../../src/recipe/paper-presets.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import type { PreferenceRecipe, Recipe, RecipeOf } from '../../src/recipe/schema.ts';

// biome-ignore format: one data set a line, as in the paper's table.
const table = [
  // data set, learning rate, epochs, batch, λ_token, λ_loss, θ_sft, tasks, samples, temperature, formats, start, evaluated
  ['hotpot', 2e-5, 3, 32, 0.6, 1,   0.5, 10000, 10, 0.3, true,  'previous', 1000],
  ['2wmh',   2e-5, 2, 32, 0.6, 1,   0.5, 10000, 10, 0.3, true,  'previous', 1000],
  ['trivia', 2e-5, 3, 32, 0.6, 1,   0.6, 10000, 10, 0.3, true,  'previous', 1000],
  ['cbt',    2e-5, 2, 32, 0.6, 1,   0.5, 10000, 10, 0.3, true,  'previous', 1000],
  ['math',   1e-6, 3, 16, 0.4, 0.9, 0.6, 7500,  10, 0.7, false, 'base',     5000],
  ['gsm8k',  2e-6, 3, 16, 0.4, 0.9, 0.6, 7000,  10, 0.7, false, 'base',     1319],
  ['arc-c',  1e-6, 4, 16, 0.5, 0.6, 0.6, 2000,  15, 0.3, true,  'base',     1172],
  ['mmlu',   1e-6, 2, 16, 0.6, 0.7, 0.6, 10000, 10, 0.3, true,  'base',     14042],
] as const;

/** A recipe in which no value is one of the paper's: what is left of it shows. */
const rest: Recipe = {
  ...presetRecipe('quick'),
  seed: 9,
  reward: { lambdaToken: 9, lambdaLoss: 9, lossFloor: 9 },
  sft: { ...presetRecipe('quick').sft, clipNorm: 9 },
  concurrency: 9,
};

test('each data set has the paper’s values, and the rest from where it began', () => {
  assert.equal(
    paperDataSets,
    table.map(([dataSet]) => dataSet),
  );
  for (const [dataSet, learningRate, epochs, batchSize, token, loss, theta, tasks, ...more] of table) {
    const [samplesPerTask, temperature, formats, startFrom, evaluated] = more;
    const keepFraction = 0.7;
    assert.equal(
      paperRecipe(dataSet, rest),
      {
        ...rest,
        iterations: 5,
        initialization: { tasks, samplesPerTask, formats, thetaInit: theta, keepFraction, temperature },
        isft: { tasks, samplesPerTask, thetaSft: theta, keepFraction, temperature: 0.7, startFrom },
        reward: { lambdaToken: token, lambdaLoss: loss, lossFloor: 9 },
        sft: { ...rest.sft, learningRate, epochs, batchSize, maxSequenceTokens: 4096 },
        maxMessageTokens: 512,
        evaluation: { tasks: evaluated, validationTasks: 0 },
      },
      dataSet,
    );
  }
});

test('a paper preset is the data set’s recipe, and what the paper leaves open is as in `full`', () => {
  for (const [dataSet] of table) {
    assert.equal(presetRecipe(`paper:${dataSet}`), paperRecipe(dataSet, presetRecipe('full')));
  }
});

// biome-ignore format: one data set a line, as in the paper's table.
const preferences = [
  // data set, iDPO: λ_token, λ_loss, β, θ_filter; iSFT-DPO: SFT's rate, epochs, batch, λ_token, λ_loss, β
  ['hotpot', 0.6, 1,   0.1, 0.4,  2e-5, 2, 32, 0.6, 1,   0.5],
  ['2wmh',   0.6, 1,   0.5, 0.4,  2e-5, 1, 32, 0.6, 1,   0.5],
  ['trivia', 0.6, 1,   0.5, 0.4,  2e-5, 1, 32, 0.6, 1,   0.7],
  ['cbt',    0.6, 1,   0.1, 0.4,  2e-5, 1, 32, 0.6, 1,   0.7],
  ['math',   0.5, 0.7, 0.1, 0.4,  1e-6, 4, 32, 0.4, 0.9, 0.1],
  ['gsm8k',  0.6, 0.7, 0.2, 0.4,  1e-6, 3, 16, 0.4, 0.9, 0.5],
  ['arc-c',  0.4, 0.7, 0.2, 0.45, 1e-6, 4, 16, 0.5, 0.6, 0.1],
  ['mmlu',   0.6, 0.7, 0.1, 0.4,  1e-6, 2, 16, 0.6, 0.7, 0.1],
] as const;

test('each data set has the paper’s values for preference training, too', () => {
  assert.equal(
    preferences.map(([dataSet]) => dataSet),
    paperDataSets,
  );
  for (const [dataSet, token, loss, beta, thetaFilter, ...hybridRow] of preferences) {
    const idpo = paperRecipe(dataSet, presetRecipe('full', 'idpo')) as PreferenceRecipe;
    const hybrid = paperRecipe(dataSet, presetRecipe('full', 'isft-dpo')) as RecipeOf<'isft-dpo'>;
    const isft = paperRecipe(dataSet, presetRecipe('full')) as RecipeOf<'isft'>;
    assert.equal([idpo.reward.lambdaToken, idpo.reward.lambdaLoss, idpo.dpo.beta], [token, loss, beta]);
    assert.equal(idpo.sft, isft.sft, 'its initialization is as iSFT’s');
    const { sft, reward } = hybrid;
    assert.equal(
      [sft.learningRate, sft.epochs, sft.batchSize, reward.lambdaToken, reward.lambdaLoss, hybrid.dpo.beta],
      hybridRow,
    );
    assert.equal(hybrid.isft, isft.isft);
    for (const { recipe, search, pairs, dpo } of [idpo, hybrid]) {
      const percentile = recipe === 'idpo' ? 85 : 80;
      assert.equal([search.tasks, search.temperature], [isft.initialization.tasks, 0.7]);
      assert.equal([search.expansions, search.rolloutsPerExpansion], [8, 3]);
      assert.equal([search.backup, search.pilotDialogues], ['mean-of-rollouts', 100]);
      assert.is(search.pilotPercentile, percentile);
      assert.equal(pairs, {
        ...{ from: 'extremes', values: 'raw', thetaFilter },
        ...{ thetaDiff: 0.2, keepShare: 0.5, keepPer: 'task' },
      });
      assert.equal([dpo.loss, dpo.learningRate, dpo.epochs, dpo.batchSize], ['dpo', 5e-7, 1, 64]);
      assert.is(dpo.alpha, recipe === 'idpo' ? 1 : 0);
    }
  }
});

test.run();
