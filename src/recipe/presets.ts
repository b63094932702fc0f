// Presets: complete recipes to start from. `quick` and `full` are for the embedded model.
import { nearest, OptimaError } from '../domain/errors.ts';
import { defaultSftConfig } from '../training/sft/config.ts';
import { paperDataSets, paperRecipe } from './paper-presets.ts';
import type { Recipe } from './schema.ts';

/** Ends in minutes on two cores, both evaluations included. */
const quick: Recipe = {
  recipe: 'isft',
  seed: 1,
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
  maxMessageTokens: 96,
  evaluation: { tasks: 200, validationTasks: 0 },
  keep: 'last',
  concurrency: 64,
};

/** The figures of docs/results.md. */
const full: Recipe = {
  ...quick,
  iterations: 4,
  initialization: { ...quick.initialization, tasks: 200 },
  isft: { ...quick.isft, tasks: 200 },
  evaluation: { tasks: 500, validationTasks: 100 },
};

const presets: ReadonlyMap<string, Recipe> = new Map([
  ['quick', quick],
  ['full', full],
  ...paperDataSets.map((dataSet) => [`paper:${dataSet}`, paperRecipe(dataSet, full)] as const),
]);

export const presetNames: readonly string[] = [...presets.keys()];

/** The recipe of a preset; throws `usage` with the nearest name. */
export function presetRecipe(name: string): Recipe {
  const recipe = presets.get(name);
  if (recipe !== undefined) return recipe;
  const guess = nearest(name, presetNames);
  throw new OptimaError('usage', `There is no preset "${name}".`, {
    hint: guess ? `Did you mean "${guess}"?` : `Presets: ${presetNames.join(', ')}.`,
  });
}
