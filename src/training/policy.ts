// What training needs of a policy in process.
import type { PolicyHash } from '../domain/ids.ts';
import type { TreeLayout, tf } from '../tensor/index.ts';

/** A policy whose weights can be differentiated. */
export interface DifferentiablePolicy {
  /** Weights by their Hugging Face names. */
  readonly parameters: ReadonlyMap<string, tf.Variable>;
  readonly tokenizer: { readonly padId: number };
  /**
   * Logits of the tokens that follow the flat `positions` (int32 [n]) of right-padded `inputIds`
   * (int32 [b, t]): [n, vocab]. With a layout the one row holds a tree's tokens. Differentiable with respect to the
   * parameters; runs inside a tidy.
   */
  computeLogits(inputIds: tf.Tensor2D, positions: tf.Tensor1D, layout?: TreeLayout): tf.Tensor2D;
  /** Recomputes `hash` from the weights. */
  refreshHash(): PolicyHash | Promise<PolicyHash>;
}
