// Which numbers of a recipe can be changed after the run: those that say what is chosen of dialogues that were held.
import { OptimaError } from '../../domain/errors.ts';
import { applySettings, type Recipe, recipeKeys } from '../../recipe/schema.ts';

/** Keys, or groups of them, of which the log alone says what they would have changed. */
const recomputable = [
  'reward',
  'eligible',
  'initialization.thetaInit',
  'initialization.keepFraction',
  'isft.thetaSft',
  'isft.keepFraction',
  'pairs',
  'search.backup',
  'search.pilotPercentile',
];

const otherDialogues = 'other dialogues would have been held, and only a model can say what is in them';
const otherBranches = 'the search would have grown other branches, and only a model can say what is in them';
const otherWeights = 'it changes what training makes of the choice, and not the choice';
const sameChoice = 'it changes nothing of what is chosen';

/** Why any other key cannot be, by the key or its group; the first that fits counts. */
const refusals: readonly (readonly [keys: readonly string[], reason: string])[] = [
  [['search.cohort', 'search.together', 'search.cacheMegabytes', 'concurrency', 'evaluation'], sameChoice],
  [['search.tasks', 'search.temperature', 'search.pilotDialogues'], otherDialogues],
  [['search'], otherBranches],
  [['sft', 'dpo', 'policies', 'isft.startFrom', 'keep', 'iterations'], otherWeights],
  [['seed', 'initialization', 'isft', 'maxMessageTokens'], otherDialogues],
  [['recipe'], 'another recipe is another run'],
];

const isOf = (key: string, group: string) => key === group || key.startsWith(`${group}.`);

/** Why a key of a recipe cannot be changed without a model; null where it can. */
export function refusalOf(key: string): string | null {
  if (recomputable.some((group) => isOf(key, group))) return null;
  return refusals.find(([groups]) => groups.some((group) => isOf(key, group)))?.[1] ?? otherDialogues;
}

/**
 * The recipe with `key=value` settings applied, of which each text may hold several with commas between them. A key may be
 * short where one alone ends so: `thetaDiff` is `pairs.thetaDiff`. Throws `usage` as `applySettings` does, for a short key that
 * means several, and for one whose change only a model could follow.
 */
export function rerankRecipe(recipe: Recipe, settings: readonly string[]): Recipe {
  const keys = recipeKeys(recipe.recipe).map(({ key }) => key);
  const full = settings.flatMap((text) => text.split(',')).map((setting) => fullKey(setting.trim(), keys));
  const changed = applySettings(recipe, full);
  for (const setting of full) {
    const key = setting.split('=')[0]!.trim();
    const refusal = refusalOf(key);
    if (refusal === null) continue;
    throw new OptimaError('usage', `--set ${setting}: ${key} cannot be changed after the run: ${refusal}.`, {
      hint: `What can be: ${keys.filter((known) => refusalOf(known) === null).join(', ')}.`,
    });
  }
  return changed;
}

/** A setting with its key written out. */
function fullKey(setting: string, keys: readonly string[]): string {
  const [name = '', ...value] = setting.split('=');
  const short = name.trim();
  if (keys.includes(short)) return setting;
  const found = keys.filter((key) => key.endsWith(`.${short}`));
  if (found.length === 1) return [found[0], ...value].join('=');
  if (found.length === 0) return setting;
  const refusals = found.map(refusalOf);
  if (!refusals.includes(null)) return [found[0], ...value].join('=');
  throw new OptimaError('usage', `--set ${setting}: ${short} may be ${found.join(' or ')}: write it out.`);
}

/** The keys that two recipes have unlike values for, with both. */
export function changesBetween(
  before: Recipe,
  after: Recipe,
): readonly { readonly key: string; readonly before: unknown; readonly after: unknown }[] {
  // A group of keys may be left out of a recipe: without an adapter, `lora` is.
  const valueIn = (recipe: object, key: string) =>
    key.split('.').reduce<unknown>((at, part) => (at as Record<string, unknown> | undefined)?.[part], recipe);
  return recipeKeys(before.recipe)
    .map(({ key }) => ({ key, before: valueIn(before, key), after: valueIn(after, key) }))
    .filter((change) => change.before !== change.after);
}
