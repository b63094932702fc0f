// A Llama decoder that only reads: what it needs, and what it gives. Keys and values stay in blocks of tokens that any
// number of sequences may share.
import type * as tf from '@tensorflow/tfjs-core';
import type { FrozenMatrix } from './frozen-matrix.ts';

/** A matrix [out, in]: a tensor, or one that is never trained and lies outside the engine's memory. */
export type Matrix = tf.Tensor2D | FrozenMatrix;

/** Sizes of a decoder. */
export interface DecoderShape {
  readonly hiddenSize: number;
  readonly feedForwardSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  readonly vocabSize: number;
  readonly eps: number;
}

/** Weights of one decoder layer, as the forward pass reads them; matrices are [out, in]. */
export interface LayerWeights {
  /** [d] */
  readonly inputNorm: tf.Tensor1D;
  /** [heads·dh, d] */
  readonly query: Matrix;
  /** [kv·dh, d] */
  readonly key: Matrix;
  /** [kv·dh, d] */
  readonly value: Matrix;
  /** [d, heads·dh] */
  readonly output: Matrix;
  /** [d] */
  readonly postNorm: tf.Tensor1D;
  /** [f, d] */
  readonly gate: Matrix;
  /** [f, d] */
  readonly up: Matrix;
  /** [d, f] */
  readonly down: Matrix;
  /** [heads·dh]; a bias is added to what its matrix gives. */
  readonly queryBias?: tf.Tensor1D;
  /** [kv·dh] */
  readonly keyBias?: tf.Tensor1D;
  /** [kv·dh] */
  readonly valueBias?: tf.Tensor1D;
  /** [d] */
  readonly outputBias?: tf.Tensor1D;
  /** [dh]; each head of the queries is normed by it before it is rotated. */
  readonly queryNorm?: tf.Tensor1D;
  /** [dh]; and of the keys. A layer has both or neither. */
  readonly keyNorm?: tf.Tensor1D;
}

/** What only some models have. */
export const optionalLayerParts = [
  ...(['queryBias', 'keyBias', 'valueBias', 'outputBias', 'queryNorm', 'keyNorm'] as const),
];
export type OptionalLayerPart = (typeof optionalLayerParts)[number];

const layerParts = [
  ...(['inputNorm', 'query', 'key', 'value', 'output'] as const),
  ...(['postNorm', 'gate', 'up', 'down'] as const),
  ...optionalLayerParts,
];

/** The names of what a layer has, in the order in which gradients come. */
export const partsOf = (layer: Partial<Record<keyof LayerWeights, unknown>>): (keyof LayerWeights)[] =>
  layerParts.filter((name) => layer[name] !== undefined);

/** The matrices of a layer, which may have a low-rank term each. */
export const layerMatrices = ['query', 'key', 'value', 'output', 'gate', 'up', 'down'] as const;
export type LayerMatrix = (typeof layerMatrices)[number];

/** What is added to a matrix W [out, in] without ever being multiplied out: W + b·a. */
export interface LowRank {
  /** [r, in] */
  readonly a: tf.Tensor2D;
  /** [out, r] */
  readonly b: tf.Tensor2D;
  /** What becomes of the numbers [n, in] that `a` reads; they are left alone where there is none. */
  readonly drop?: ((x: tf.Tensor2D) => tf.Tensor2D) | undefined;
}

/** The low-rank terms of one layer. Where there are some, they alone get gradients, and the layer's weights none. */
export type LayerAdapter = Readonly<Partial<Record<LayerMatrix, LowRank>>>;

/** All weights of a decoder. With tied embeddings `head` is the embedding table itself. */
export interface DecoderWeights {
  /** [vocab, d] */
  readonly embedding: Matrix;
  readonly layers: readonly LayerWeights[];
  /** [d] */
  readonly norm: tf.Tensor1D;
  /** [vocab, d] */
  readonly head: Matrix;
}

/** Angles of the rotary embedding: cosines and sines [time, dh/2] for positions 0 … time − 1, at least. */
export type RotaryAngles = (time: number) => { readonly cos: Float32Array; readonly sin: Float32Array };

/** Tokens of one block. */
export const blockTokens = 16;

/** Neighbouring tokens of one sequence that are read together. */
export interface Span {
  readonly ids: readonly number[];
  /** Position of the first one; all tokens before it have been read. */
  readonly start: number;
  /** The sequence's blocks, from position 0 to the span's end. */
  readonly blocks: readonly number[];
}

/** The logits of one token. Results are valid until the next call of anything. */
export interface LogitsRow {
  /** [vocab] */
  readonly values: Float32Array;
  /** The highest logit; passes over NaN. */
  maximum(): number;
  /** Σ exp(logit − shift); NaN where a logit is. */
  sumExp(shift: number): number;
  /** exp((logit − shift) · factor) for each, and their sum. */
  exponentials(shift: number, factor: number): { readonly weights: Float32Array; readonly sum: number };
}

/**
 * Reads spans in one pass. A block is a number; whoever allocates it frees it. Everything is synchronous. What a
 * sequence gets depends on what is read beside it by no more than rounding; on the wasm heap without a BLAS not at all.
 */
export interface BlockDecoder {
  /** Bytes of one block. */
  readonly blockBytes: number;
  /** A block with nothing in it. Throws `model.failed` when memory is full. */
  allocate(): number;
  /** Makes a block hold what another one does. */
  copy(from: number, to: number): void;
  /** Gives a block back; without effect after `dispose`. */
  free(block: number): void;
  /**
   * Reads spans of different sequences: their keys and values go to their blocks. The spans must not share blocks that
   * they write to.
   */
  read(spans: readonly Span[]): void;
  /**
   * Logits after tokens of the last `read`, by their index among all tokens of its spans; valid until the next call.
   */
  logits(rows: readonly number[]): readonly LogitsRow[];
  /** Log-probabilities, in nats, of `labels` after tokens of the last `read`. */
  logprobs(rows: readonly number[], labels: readonly number[]): Float32Array;
  /** Frees all blocks, which nobody may read then. */
  dispose(): void;
}

/** A row of logits without an engine behind it. */
export function plainLogits(values: Float32Array): LogitsRow {
  return {
    values,
    maximum() {
      let highest = Number.NEGATIVE_INFINITY;
      for (let id = 0; id < values.length; id++) if (values[id]! > highest) highest = values[id]!;
      return highest;
    },
    sumExp(shift) {
      let sum = 0;
      for (let id = 0; id < values.length; id++) sum += Math.exp(values[id]! - shift);
      return sum;
    },
    exponentials(shift, factor) {
      const weights = values.map((logit) => Math.exp((logit - shift) * factor));
      return { weights, sum: weights.reduce((sum, weight) => sum + weight, 0) };
    },
  };
}
