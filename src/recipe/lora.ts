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

/**
 * Throws `usage` where a recipe cannot go on from a base: one with an adapter can only be trained as what it is, for a checkpoint
 * says the whole way from the weights that it adapts.
 */
export function requireTrainable(
  { lora: has }: { readonly lora: LoraConfig | null },
  trained: LoraConfig | undefined,
): void {
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
