// The paper's presets, against its table written down a second time: Chen et al., arXiv 2410.08115v2, Table 8, and
// what paper.ts says of the authors' code (tasks, samples, temperatures), of §3.3 and of §4.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { paperDataSets, paperRecipe } from '../../src/recipe/paper-presets.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import type { Recipe } from '../../src/recipe/schema.ts';

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

test.run();
