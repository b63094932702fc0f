// The presets for the embedded model. Figures in docs/results.md and the README were made with these numbers.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { presetNames, presetRecipe } from '../../src/recipe/presets.ts';
import type { Recipe } from '../../src/recipe/schema.ts';
import { defaultSftConfig } from '../../src/training/sft/config.ts';

const quick: Recipe = {
  recipe: 'isft',
  seed: 1,
  policies: 'shared',
  iterations: 2,
  initialization: {
    tasks: 128,
    samplesPerTask: 8,
    formats: true,
    thetaInit: 0.5,
    keepFraction: 0.7,
    temperature: 0.7,
  },
  isft: {
    tasks: 128,
    samplesPerTask: 8,
    thetaSft: 0.5,
    keepFraction: 0.7,
    temperature: 0.7,
    startFrom: null,
  },
  reward: { lambdaToken: null, lambdaLoss: null, lossFloor: 0.1 },
  eligible: { emptyMessage: false, repetition: false, cappedMessage: false, turnCap: true },
  sft: defaultSftConfig,
  maxMessageTokens: null,
  evaluation: { tasks: 200, validationTasks: 0 },
  keep: 'last',
  concurrency: 64,
};

test('`quick` and `full` are these numbers', () => {
  assert.equal(presetRecipe('quick'), quick);
  assert.equal(presetRecipe('full'), {
    ...quick,
    iterations: 4,
    initialization: { ...quick.initialization, tasks: 200 },
    isft: { ...quick.isft, tasks: 200 },
    evaluation: { tasks: 500, validationTasks: 100 },
  });
});

test('the presets come in order, and a name that is none is answered with the nearest or with all', () => {
  assert.equal(presetNames.slice(0, 3), ['quick', 'full', 'paper:hotpot']);
  const hintFor = (name: string) => {
    try {
      presetRecipe(name);
    } catch (error) {
      assert.is((error as OptimaError).message, `There is no preset "${name}".`);
      return (error as OptimaError).hint;
    }
    throw new Error(`${name} was taken.`);
  };
  assert.is(hintFor('quik'), 'Did you mean "quick"?');
  assert.is(hintFor('zzzzzzzzzz'), `Presets: ${presetNames.join(', ')}.`);
});

test.run();
