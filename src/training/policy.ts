// What training needs of a policy in process.
import type { PolicyHash } from '../domain/ids.ts';
import type { LoraConfig } from '../domain/lora.ts';
import type { TreeLayout, tf } from '../tensor/index.ts';

/** What a pass of training computes with. */
export interface ReadPolicy {
  /** What is trained, by Hugging Face's names: all weights, or the factors of an adapter. */
  readonly parameters: ReadonlyMap<string, tf.Variable>;
  readonly tokenizer: { readonly padId: number };
  /**
   * Logits of the tokens that follow the flat `positions` (int32 [n]) of right-padded `inputIds`
   * (int32 [b, t]): [n, vocab]. With a layout the one row holds a tree's tokens. Differentiable with respect to the
   * parameters; runs inside a tidy.
   */
  computeLogits(inputIds: tf.Tensor2D, positions: tf.Tensor1D, layout?: TreeLayout): tf.Tensor2D;
}

/** A policy of which something can be trained. */
export interface DifferentiablePolicy extends ReadPolicy {
  /** Of what kind that adapter is; null where there is none. */
  readonly lora?: LoraConfig | null;
  /** As one pass reads it, where chance has a part in that: what is drawn follows from `seed`, wherever it is computed. */
  inTraining?(seed: string): ReadPolicy;
  /** Recomputes `hash` from the weights. */
  refreshHash(): PolicyHash | Promise<PolicyHash>;
}
