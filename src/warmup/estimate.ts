// How long a warm-up may take, before it begins.
import { createRng } from '../domain/rng.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Scenario } from '../scenario/types.ts';
import { demonstrateDialogues, viewsOf } from './demonstrations.ts';

/** What `optima warmup` does unless told otherwise, with new weights and from a checkpoint. */
export const warmupDefaults = {
  scratch: { steps: 10_000, echoSteps: 800 },
  // A checkpoint can copy and look up already.
  from: { steps: 1500, echoSteps: 0 },
  dialogues: 10,
  learningRate: 2e-3,
} as const;

/** Tokens a second that two cores train on, of a model of a million weights (docs/performance.md). */
const tokensPerSecond = 20_000;

/** Seconds that a warm-up from a checkpoint may take on two cores of today, by the length of what the scenarios demonstrate. */
export async function estimateSeconds(
  scenarios: readonly Scenario[],
  policy: LlamaPolicy,
  { steps = warmupDefaults.from.steps as number, dialogues = warmupDefaults.dialogues as number } = {},
): Promise<number> {
  const sample = await demonstrateDialogues(scenarios, 'train', 20, createRng(1));
  const tokens = sample.flatMap(viewsOf).reduce((sum, view) => sum + policy.encode(view).tokenIds.length, 0);
  // Loaded here: whoever asks for the defaults alone computes nothing.
  const { parameterCount } = await import('../models/llama/size.ts');
  const weights = parameterCount(policy.config);
  return ((tokens / sample.length) * dialogues * steps * (weights / 1e6)) / tokensPerSecond;
}
