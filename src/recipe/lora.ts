// What a recipe trains: all weights, or an adapter.
import { OptimaError } from '../domain/errors.ts';
import { isSameLora, type LoraConfig, loraScale, loraTargets } from '../domain/lora.ts';
import { presetRecipe } from './presets.ts';
import { applySettings, type Recipe } from './schema.ts';

/** The adapter that a recipe trains; undefined where it trains all weights. */
export function loraOf({ lora }: Pick<Recipe, 'lora'>): LoraConfig | undefined {
  return lora && { ...lora, targets: loraTargets(lora.targets)! };
}

/** The adapter that settings of the keys of `lora` come to, for what has no recipe. Throws `usage`, for other keys too. */
export function loraFrom(settings: readonly string[]): LoraConfig | undefined {
  const other = settings.find((setting) => !setting.trimStart().startsWith('lora.'));
  if (other === undefined) return loraOf(applySettings(presetRecipe('quick'), settings));
  throw new OptimaError('usage', `--set ${other}: only keys of lora can be set here.`, {
    hint: 'Such as --set lora.rank=8.',
  });
}

/** What a recipe begins with. */
interface Base {
  readonly lora: LoraConfig | null;
  mostRank(targets: LoraConfig['targets']): number;
}

/**
 * Throws `usage` where a recipe cannot go on from a base: an adapter of a higher rank than a matrix can have; and one with an
 * adapter can only be trained as what it is, for a checkpoint says the whole way from the weights that it adapts.
 */
export function requireTrainable(base: Base, trained: LoraConfig | undefined): void {
  const most = trained === undefined ? Number.POSITIVE_INFINITY : base.mostRank(trained.targets);
  if (trained !== undefined && trained.rank > most) {
    throw new OptimaError(
      'usage',
      `lora.rank ${trained.rank}: the model has a matrix of which ${most} is the most.`,
      {
        hint: '8 to 64 are usual.',
      },
    );
  }
  const { lora: has } = base;
  if (has === null || (trained !== undefined && isSameLora(has, trained))) return;
  const { rank, targets } = has;
  const settings = { rank, alpha: rank * loraScale(has), targets: targets.join(',') };
  const words = Object.entries(settings).map(([key, value]) => `--set lora.${key}=${value}`);
  throw new OptimaError(
    'usage',
    `The model is a base with an adapter, and what is asked for trains ${trained === undefined ? 'all weights' : 'one of another kind'}.`,
    { hint: `Go on with the adapter by ${words.join(' ')}, or merge it first with optima merge.` },
  );
}
