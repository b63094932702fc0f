// One optimizer step of any objective: a batch's gradient, pass by pass, and what the optimizer makes of it.
import type { AdamW } from './adamw.ts';
import { computeGradients, type PassGradients, PassSum } from './gradients.ts';
import type { StepResult } from './loop.ts';
import type { Objective } from './objective.ts';
import type { DifferentiablePolicy } from './policy.ts';

/**
 * Computes the sum over the passes of a batch that has `terms` terms, the same wherever they are computed; chance in it
 * follows from `seed`, without which there is none. The gradients may be overwritten by the next call.
 */
export type ComputePasses<Example> = (
  passes: readonly (readonly Example[])[],
  terms: number,
  seed?: string,
) => Promise<PassGradients>;

/** The seed of one of the passes of a step. */
export const passSeed = (seed: string | undefined, index: number): string | undefined =>
  seed && `${seed}/${index}`;

/** How a step is taken. */
export interface StepOptions<Example> {
  readonly learningRate: number;
  readonly tokensPerPass: number;
  /** Of chance in the step: no two steps have the same. Without it there is none. */
  readonly seed?: string | undefined;
  /** Default: `onThisThread`. */
  readonly computePasses?: ComputePasses<Example> | undefined;
}

/** Computes loss, figures and gradient of the batch, and applies the gradient. Leaves no tensor behind. */
export async function takeStep<Example>(
  policy: DifferentiablePolicy,
  objective: Objective<Example>,
  optimizer: AdamW,
  batch: readonly Example[],
  {
    learningRate,
    tokensPerPass,
    seed,
    computePasses = onThisThread(policy, objective),
  }: StepOptions<Example>,
): Promise<StepResult> {
  const passes = objective.planPasses(batch, tokensPerPass);
  const { loss, figures, gradients } = await computePasses(passes, objective.countTerms(batch), seed);
  const gradNorm = optimizer.apply(gradients, learningRate);
  return { loss, gradNorm, tokens: objective.countTokens(batch), figures };
}

/** One pass after the other, on this thread. */
export function onThisThread<Example>(
  policy: DifferentiablePolicy,
  objective: Objective<Example>,
): ComputePasses<Example> {
  return async (passes, terms, seed) => {
    const sum = new PassSum();
    passes.forEach((pass, index) => {
      sum.add(index, computePassGradients(policy, objective, pass, terms, undefined, passSeed(seed, index)));
    });
    return sum.total;
  };
}

/** One pass of a batch that has `terms` terms, and its gradient: see `computeGradients`. Chance in it follows from `seed`. */
export function computePassGradients<Example>(
  policy: DifferentiablePolicy,
  objective: Objective<Example>,
  pass: readonly Example[],
  terms: number,
  arrayFor?: (name: string, size: number) => Float32Array,
  seed?: string,
): PassGradients {
  const read = (seed === undefined ? undefined : policy.inTraining?.(seed)) ?? policy;
  return computeGradients(policy.parameters, () => objective.computePass(read, pass, terms), arrayFor);
}
