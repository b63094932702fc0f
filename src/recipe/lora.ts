// What a recipe trains: all weights, or an adapter.
import { OptimaError } from '../domain/errors.ts';
import { isSameLora, type LoraConfig, loraScale, loraTargets } from '../domain/lora.ts';
import type { Recipe } from './schema.ts';

/** The adapter that a recipe trains; undefined where it trains all weights. */
export function loraOf({ lora }: Pick<Recipe, 'lora'>): LoraConfig | undefined {
  return lora && { ...lora, targets: loraTargets(lora.targets)! };
}

/**
 * Throws `usage` where a recipe cannot go on from a base: one with an adapter can only be trained as what it is, for a checkpoint
 * says the whole way from the weights that it adapts.
 */
export function requireTrainable(base: { readonly lora: LoraConfig | null }, recipe: Recipe): void {
  const [has, trained] = [base.lora, loraOf(recipe)];
  if (has === null || (trained !== undefined && isSameLora(has, trained))) return;
  const { rank, dropout, targets } = has;
  const settings = { rank, alpha: rank * loraScale(has), dropout, targets: targets.join(',') };
  const words = Object.entries(settings).map(([key, value]) => `--set lora.${key}=${value}`);
  throw new OptimaError(
    'usage',
    `The model is a base with an adapter, and the recipe trains ${trained === undefined ? 'all weights' : 'one of another kind'}.`,
    { hint: `Go on with the adapter by ${words.join(' ')}, or merge it first with optima merge.` },
  );
}
