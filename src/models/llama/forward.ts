// The decoder's forward pass over whole sequences with tensors: what training differentiates, and what
// tensor-decoder.ts reads with.
import {
  attention,
  causalAttention,
  type DecoderWeights,
  embed,
  fusedLayer,
  type LayerAdapter,
  type LayerMatrix,
  type LayerWeights,
  linear,
  maskedScore,
  rmsNorm,
  rotary,
  swiglu,
  type TreeLayout,
  tf,
} from '../../tensor/index.ts';
import type { LlamaConfig } from './config.ts';
import type { RotaryTable, Rotation } from './rotary.ts';

/** What every pass needs: the architecture, the weights, with low-rank terms of each layer's matrices where there are some, and the rotary angles. */
export interface Decoder {
  readonly config: LlamaConfig;
  readonly weights: DecoderWeights;
  readonly adapter?: readonly LayerAdapter[] | undefined;
  readonly rotary: RotaryTable;
}

/** Keys (rotated) and values of one layer: [b, kv, s, dh] each. A type, not an interface, so that tidy takes it. */
export type KeysValues = { readonly keys: tf.Tensor4D; readonly values: tf.Tensor4D };

/** What stands before the tokens of a pass. */
export interface Past {
  /** Tokens of each row. */
  readonly lengths: readonly number[];
  /** For each layer [b, kv, p, dh]; a row fills the last slots. */
  readonly layers: readonly KeysValues[];
}

/** Mixes tokens: queries [n, heads·dh], keys and values [n, kv·dh] → [n, heads·dh]. */
type Attend = (queries: tf.Tensor2D, keys: tf.Tensor2D, values: tf.Tensor2D) => tf.Tensor2D;

/** One decoder layer on flat tokens [n, d]; `attend` says what each token sees. */
function computeLayer(
  x: tf.Tensor2D,
  layer: LayerWeights,
  adapter: LayerAdapter,
  eps: number,
  attend: Attend,
): tf.Tensor2D {
  const through = (from: tf.Tensor2D, name: LayerMatrix, bias?: tf.Tensor1D): tf.Tensor2D => {
    const out = linear(from, layer[name], adapter[name]);
    return bias === undefined ? out : tf.add(out, bias);
  };
  /** Each head [dh] of [n, heads·dh] for itself. */
  const normHeads = (heads: tf.Tensor2D, norm: tf.Tensor1D | undefined): tf.Tensor2D =>
    norm === undefined
      ? heads
      : tf.reshape(rmsNorm(tf.reshape(heads, [-1, norm.size]), norm, eps), heads.shape);
  const normed = rmsNorm(x, layer.inputNorm, eps);
  const mixed = attend(
    normHeads(through(normed, 'query', layer.queryBias), layer.queryNorm),
    normHeads(through(normed, 'key', layer.keyBias), layer.keyNorm),
    through(normed, 'value', layer.valueBias),
  ); // [n, heads·dh]
  const attended = tf.add(x, through(mixed, 'output', layer.outputBias)) as tf.Tensor2D; // [n, d]
  const inner = rmsNorm(attended, layer.postNorm, eps);
  const gated = swiglu(through(inner, 'gate'), through(inner, 'up')); // [n, f]
  return tf.add(attended, through(gated, 'down'));
}

interface HiddenOptions {
  readonly past?: Past | undefined;
  /** How the tokens of the one row hang together where they are not a line; without a past. */
  readonly layout?: TreeLayout | undefined;
  /** Layers are computed once more in the backward pass, which then keeps next to nothing of them; where they are fused. */
  readonly recompute?: boolean | undefined;
  /** Receives each layer's keys and values, past ones first; they belong to the surrounding tidy. */
  readonly onLayer?: (layer: KeysValues) => void;
}

/**
 * The final hidden states, normed and ready for `project`: ids int32 [b, t], right-padded → [b·t, d].
 * Tokens see what is past, what stands before them, and themselves, so padding at the right changes no real token.
 * Differentiable with respect to the weights, or where there are low-rank terms to those alone.
 */
export function computeHidden(
  { config, weights, adapter, rotary: table }: Decoder,
  ids: tf.Tensor2D,
  { past, layout, recompute, onLayer }: HiddenOptions = {},
): tf.Tensor2D {
  const [b, t] = ids.shape;
  const { num_attention_heads: h, num_key_value_heads: kv, head_dim: dh } = config;
  const rotation =
    layout === undefined ? table.forSpans(past?.lengths ?? [0], t) : table.forPositions(layout.positions);
  const tree = layout === undefined ? {} : { segments: layout.segments };
  // Where nobody asks for keys and values and nothing is past, one operation does it all.
  const bias = past === undefined && onLayer === undefined ? null : causalBias(t, past);
  let x = embed(weights.embedding, tf.reshape(ids, [b * t])); // [b·t, d]
  weights.layers.forEach((layer, index) => {
    // What a layer leaves behind is freed at its end; what its gradient needs, TF.js keeps by itself.
    const { out, keys, values } = tf.tidy(() => {
      const { rms_norm_eps: eps } = config;
      const shape = { b, t, h, kv, dh, eps, ...tree, ...(recompute && { recompute: 1 }) };
      const fused =
        bias === null ? fusedLayer(x, layer, rotation.cos, rotation.sin, shape, adapter?.[index]) : null;
      if (fused !== null) return { out: fused };
      let seen: KeysValues | undefined;
      const out = computeLayer(x, layer, adapter?.[index] ?? {}, eps, (queries, keys, values) => {
        if (bias === null) {
          return causalAttention(queries, keys, values, rotation.cos, rotation.sin, shape);
        }
        const rotated = rotateHeads(queries, [b, t, h], rotation); // [b, h, t, dh]
        const fresh: KeysValues = {
          keys: rotateHeads(keys, [b, t, kv], rotation), // [b, kv, t, dh]
          values: splitHeads(values, [b, t, kv]), // [b, kv, t, dh]
        };
        seen = past === undefined ? fresh : joinTime(past.layers[index]!, fresh); // [b, kv, p + t, dh]
        const mixed = attention(rotated, seen.keys, seen.values, bias); // [b, h, t, dh]
        return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [b * t, -1]); // [b·t, h·dh]
      });
      return { out, ...(onLayer === undefined ? {} : seen) };
    });
    x = out;
    if (keys !== undefined && values !== undefined) onLayer?.({ keys, values });
  });
  return rmsNorm(x, weights.norm, config.rms_norm_eps);
}

/** Logits of hidden states: [n, d] → [n, vocab]. Where `rows` (int32 [m], flat positions) is given, of those alone. */
export function project({ weights }: Decoder, hidden: tf.Tensor2D, rows?: tf.Tensor1D): tf.Tensor2D {
  return linear(rows === undefined ? hidden : embed(hidden, rows), weights.head);
}

const joinTime = (before: KeysValues, after: KeysValues): KeysValues => ({
  keys: tf.concat([before.keys, after.keys], 2),
  values: tf.concat([before.values, after.values], 2),
});

/** [b·t, n·dh] → [b, n, t, dh] */
function splitHeads(x: tf.Tensor2D, [b, t, n]: readonly [number, number, number]): tf.Tensor4D {
  return tf.transpose(tf.reshape(x, [b, t, n, -1]), [0, 2, 1, 3]) as tf.Tensor4D;
}

function rotateHeads(
  x: tf.Tensor2D,
  shape: readonly [number, number, number],
  { cos, sin }: Rotation,
): tf.Tensor4D {
  return rotary(splitHeads(x, shape), cos, sin);
}

/** [1, 1, t, t], or with a past [b, 1, t, p + t]: token i sees its row's past and tokens 0 … i. */
function causalBias(t: number, past?: Past): tf.Tensor4D {
  const p = past === undefined ? 0 : past.layers[0]!.keys.shape[2];
  const lengths = past?.lengths ?? [0];
  const width = p + t;
  const bias = new Float32Array(lengths.length * t * width);
  lengths.forEach((length, row) => {
    for (let i = 0; i < t; i++) {
      const start = (row * t + i) * width;
      bias.fill(maskedScore, start, start + p - length);
      bias.fill(maskedScore, start + p + i + 1, start + width);
    }
  });
  return tf.tensor4d(bias, [lengths.length, 1, t, width]);
}
