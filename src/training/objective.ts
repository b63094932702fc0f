// What a training minimizes: the seam between what all algorithms share (epochs, loop, gradients, workers) and what
// each computes itself. A new algorithm adds its spec and its line in objectives.ts.
import type { tf } from '../tensor/index.ts';
import type { PreferenceLoss } from './dpo/loss.ts';
import type { ReadPolicy } from './policy.ts';

/** Names an objective, with its settings. Plain data: a worker makes the objective again from it. */
export type ObjectiveSpec =
  | { readonly name: 'sft' }
  | ({ readonly name: 'dpo'; readonly packed: boolean } & PreferenceLoss);

/** What is measured beside the loss, by name. */
export type Figures = Readonly<Record<string, number>>;

/** What a pass adds to its batch's loss and figures. */
export interface PassShare {
  readonly loss: tf.Scalar;
  readonly figures: Readonly<Record<string, tf.Scalar>>;
}

/** A loss over examples: how a batch is counted, split and computed. Examples are plain data that cross to workers. */
export interface Objective<Example> {
  readonly spec: ObjectiveSpec;
  /** How many tokens of the batch are learnt. */
  countTokens(batch: readonly Example[]): number;
  /** How many terms the loss of the batch is the mean of: its tokens, say, or its examples. */
  countTerms(batch: readonly Example[]): number;
  /** Splits a batch into passes of at most `tokensPerPass` padded tokens, unless one example alone has more. */
  planPasses(batch: readonly Example[], tokensPerPass: number): readonly (readonly Example[])[];
  /**
   * One pass of a batch that has `terms` terms. Differentiable with respect to the policy's parameters; runs
   * inside a tidy. The shares of a batch's passes add up to its loss and figures.
   */
  computePass(policy: ReadPolicy, pass: readonly Example[], terms: number): PassShare;
}
