// Presets: complete recipes to start from. `quick` and `full` are for the embedded model.
import { nearest, OptimaError } from '../domain/errors.ts';
import { defaultDpoConfig } from '../training/dpo/config.ts';
import { defaultSftConfig } from '../training/sft/config.ts';
import { paperDataSets, paperRecipe } from './paper-presets.ts';
import {
  type IsftRecipe,
  type PreferenceRecipe,
  type Recipe,
  type RecipeName,
  type RecipeOf,
  recipeNames,
} from './schema.ts';

/** What the presets of all recipes have in common: a run ends in minutes on two cores, both evaluations included. */
const common = {
  seed: 1,
  policies: 'shared' as const,
  initialization: {
    tasks: 128,
    samplesPerTask: 8,
    formats: true,
    thetaInit: 0.5,
    keepFraction: 0.7,
    temperature: 0.7,
  },
  reward: { lambdaToken: null, lambdaLoss: null, lossFloor: 0.1 },
  eligible: { emptyMessage: false, repetition: false, cappedMessage: false, turnCap: true },
  sft: defaultSftConfig,
  maxMessageTokens: null,
  evaluation: { tasks: 200, validationTasks: 0 },
  keep: 'last' as const,
  concurrency: 64,
};

const isft: IsftRecipe['isft'] = {
  tasks: 128,
  samplesPerTask: 8,
  thetaSft: 0.5,
  keepFraction: 0.7,
  temperature: 0.7,
  startFrom: null,
};

const preference: Pick<PreferenceRecipe, 'search' | 'pairs' | 'dpo'> = {
  search: {
    tasks: 64,
    expansions: 8,
    rolloutsPerExpansion: 3,
    minDistance: 0.25,
    mergeBelow: 0.1,
    candidates: 10,
    policy: 'softmax',
    selectionTemperature: 1,
    exploration: 1,
    backup: 'mean-of-children',
    temperature: 0.7,
    pilotDialogues: 100,
    pilotPercentile: 85,
    cohort: 16,
    together: 16,
    cacheMegabytes: 256,
  },
  // With half of each task's pairs and a difference of 0.2, as in the paper, a small search leaves a few dozen.
  pairs: { from: 'all', values: 'raw', thetaFilter: 0.4, thetaDiff: 0.1, keepShare: 1, keepPer: 'task' },
  dpo: { ...defaultDpoConfig, packed: true },
};

const quickOf: Readonly<Record<RecipeName, Recipe>> = {
  isft: { recipe: 'isft', iterations: 2, ...common, isft },
  idpo: { recipe: 'idpo', iterations: 2, ...common, ...preference },
  // Its DPO has no term of the chosen turn's own loss (docs/method.md §6).
  'isft-dpo': {
    recipe: 'isft-dpo',
    iterations: 2,
    ...common,
    isft,
    ...preference,
    dpo: { ...preference.dpo, alpha: 0 },
  },
};

/** The figures of docs/results.md: more tasks, iterations and validation. */
function fullOf(name: RecipeName): Recipe {
  const quick = quickOf[name];
  return {
    ...quick,
    iterations: 4,
    initialization: { ...quick.initialization, tasks: 200 },
    ...('isft' in quick && { isft: { ...quick.isft, tasks: 200 } }),
    ...('search' in quick && { search: { ...quick.search, tasks: 128 } }),
    evaluation: { tasks: 500, validationTasks: 100 },
  };
}

const presets: ReadonlyMap<string, (recipe: RecipeName) => Recipe> = new Map([
  ['quick', (recipe: RecipeName) => quickOf[recipe]],
  ['full', fullOf],
  ...paperDataSets.map(
    (dataSet) => [`paper:${dataSet}`, (recipe: RecipeName) => paperRecipe(dataSet, fullOf(recipe))] as const,
  ),
]);

export const presetNames: readonly string[] = [...presets.keys()];

/** What `--preset` and `--recipe` are when they are not given. */
export const defaultPreset = 'quick';
export const defaultRecipe: RecipeName = 'isft-dpo';

/** A preset of a recipe, by default of iSFT; throws `usage` with the nearest name. */
export function presetRecipe<Name extends RecipeName = 'isft'>(name: string, recipe?: Name): RecipeOf<Name> {
  const preset = presets.get(name);
  if (preset === undefined) throw unknown('preset', 'Presets', name, presetNames);
  return preset(recipe ?? 'isft') as RecipeOf<Name>;
}

/** The recipe of this name; throws `usage` with the nearest one. */
export function recipeNamed(name: string): RecipeName {
  const found = recipeNames.find((known) => known === name);
  if (found === undefined) throw unknown('recipe', 'Recipes', name, recipeNames);
  return found;
}

function unknown(what: string, all: string, name: string, names: readonly string[]): OptimaError {
  const guess = nearest(name, names);
  return new OptimaError('usage', `There is no ${what} "${name}".`, {
    hint: guess ? `Did you mean "${guess}"?` : `${all}: ${names.join(', ')}.`,
  });
}
