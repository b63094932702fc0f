// The decoder's operations, each with exact gradients: one fused kernel where the backend has it (wasm), else
// composed from TF.js' own operations. All are synchronous and work inside tidy and variableGrads.
import * as tf from '@tensorflow/tfjs';

type Save = (tensors: tf.Tensor[]) => void;

const hasKernel = (name: string): boolean => tf.getKernel(name, tf.getBackend()) !== undefined;

/** Runs one kernel by name; `Out` says whether it returns one tensor or several. */
const run = <Out extends tf.Tensor | tf.Tensor[]>(
  kernel: string,
  inputs: Record<string, tf.Tensor>,
  attrs: Record<string, number> = {},
): Out => tf.engine().runKernel(kernel, inputs, attrs) as Out;

/**
 * `forward` with its gradient given by `backward`. What `backward` reads goes through `save`: other tensors
 * may be gone by then.
 */
function differentiable<Out extends tf.Tensor>(
  inputs: readonly tf.Tensor[],
  forward: (save: Save) => Out,
  backward: (dy: Out, saved: tf.Tensor[]) => tf.Tensor | tf.Tensor[],
): Out {
  return tf.customGrad((...args) => {
    const save = args.at(-1) as unknown as Save;
    return { value: forward(save), gradFunc: (dy, saved) => backward(dy as Out, saved) };
  })(...inputs) as Out;
}

/** x·wᵀ: x [n, in], w [out, in] (Hugging Face layout) → [n, out]. */
export function linear(x: tf.Tensor2D, w: tf.Tensor2D): tf.Tensor2D {
  return tf.matMul(x, w, false, true);
}

/** x / √(mean(x²) + eps) · weight: x [n, d], weight [d] → [n, d]. Zhang and Sennrich, arXiv 1910.07467. */
export function rmsNorm(x: tf.Tensor2D, weight: tf.Tensor1D, eps: number): tf.Tensor2D {
  if (hasKernel('RmsNorm')) {
    return differentiable(
      [x, weight],
      (save) => {
        save([x, weight]);
        return run<tf.Tensor2D>('RmsNorm', { x, weight }, { eps });
      },
      (dy, [x, weight]) => run<tf.Tensor[]>('RmsNormGrad', { dy, x: x!, weight: weight! }, { eps }),
    );
  }
  const scale = tf.rsqrt(tf.add(tf.mean(tf.square(x), 1, true), eps)); // [n, 1]
  return tf.mul(tf.mul(x, scale), weight);
}

/** silu(gate) · up: gate, up [n, f] → [n, f]. Shazeer, arXiv 2002.05202. */
export function swiglu(gate: tf.Tensor2D, up: tf.Tensor2D): tf.Tensor2D {
  if (hasKernel('Swiglu')) {
    return differentiable(
      [gate, up],
      (save) => {
        save([gate, up]);
        return run<tf.Tensor2D>('Swiglu', { gate, up });
      },
      (dy, [gate, up]) => run<tf.Tensor[]>('SwigluGrad', { dy, gate: gate!, up: up! }),
    );
  }
  return tf.mul(tf.mul(gate, tf.sigmoid(gate)), up);
}

/**
 * Rotary position embedding in the "rotate half" convention of Hugging Face's Llama: coordinate j pairs with
 * j + dh/2. x [b, h, t, dh], cos and sin [b or 1, 1, t, dh/2] (they get no gradient) → as x.
 */
export function rotary(x: tf.Tensor4D, cos: tf.Tensor4D, sin: tf.Tensor4D): tf.Tensor4D {
  if (hasKernel('Rotary')) {
    return differentiable(
      [x],
      (save) => {
        save([cos, sin]);
        return run<tf.Tensor4D>('Rotary', { x, cos, sin }, { direction: 1 });
      },
      (dy, [cos, sin]) => run<tf.Tensor>('Rotary', { x: dy, cos: cos!, sin: sin! }, { direction: -1 }),
    );
  }
  const [left, right] = tf.split(x, 2, 3) as [tf.Tensor4D, tf.Tensor4D]; // each [b, h, t, dh/2]
  return tf.concat(
    [
      tf.sub(tf.mul(left, cos), tf.mul(right, sin)) as tf.Tensor4D,
      tf.add(tf.mul(right, cos), tf.mul(left, sin)) as tf.Tensor4D,
    ],
    3,
  );
}

/**
 * softmax(q·kᵀ/√dh + bias)·v with grouped queries: query head i reads key head ⌊i · kv / h⌋.
 * q [b, h, t, dh], k and v [b, kv, s, dh] with h a multiple of kv, bias [b or 1, 1, t, s] holding 0 or -1e9
 * (it gets no gradient) → [b, h, t, dh]. Every row of the bias must leave at least one position open.
 */
export function attention(q: tf.Tensor4D, k: tf.Tensor4D, v: tf.Tensor4D, bias: tf.Tensor4D): tf.Tensor4D {
  if (hasKernel('Attention')) {
    return differentiable(
      [q, k, v],
      (save) => {
        const [out, weights] = run<tf.Tensor[]>('Attention', { q, k, v, bias });
        save([q, k, v, weights!]);
        return out as tf.Tensor4D;
      },
      (dy, [q, k, v, weights]) =>
        run<tf.Tensor[]>('AttentionGrad', { dy, q: q!, k: k!, v: v!, weights: weights! }),
    );
  }
  const [b, h, t, dh] = q.shape;
  const [, kv, s] = k.shape;
  const grouped = tf.reshape(q, [b, kv, (h / kv) * t, dh]);
  const scores = tf.reshape(tf.matMul(grouped, k, false, true), [b, h, t, s]);
  const weights = tf.softmax(tf.add(tf.mul(scores, 1 / Math.sqrt(dh)), bias)); // [b, h, t, s]
  return tf.reshape(tf.matMul(tf.reshape(weights, [b, kv, (h / kv) * t, s]), v), [b, h, t, dh]);
}

export interface DecodeAttentionInputs {
  /** Of the newest token of each row, not yet rotated: [b, h·dh]. */
  readonly queries: tf.Tensor2D;
  /** [b, kv·dh] each, the keys not yet rotated. */
  readonly keys: tf.Tensor2D;
  readonly values: tf.Tensor2D;
  /** The new token's rotation: [b, 1, 1, dh/2] each. */
  readonly cos: tf.Tensor4D;
  readonly sin: tf.Tensor4D;
  /** int32 [b] each: the slot of a row's first token, and the slot for the new one. */
  readonly starts: tf.Tensor1D;
  readonly ends: tf.Tensor1D;
  /** [b, kv, slots, dh] each, keys rotated. Used up: go on with the cache that is returned. */
  readonly cache: { readonly keys: tf.Tensor4D; readonly values: tf.Tensor4D };
}

/**
 * One decoding step of `attention`: puts each row's new key and value into its slot and lets its queries see the
 * row's slots up to there. Without gradient. Returns what was mixed, [b, h·dh], and the cache, which on wasm is the
 * one given, written in place.
 */
export function decodeAttention(inputs: DecodeAttentionInputs): {
  mixed: tf.Tensor2D;
  cache: DecodeAttentionInputs['cache'];
} {
  const { queries, keys, values, cos, sin, starts, ends, cache } = inputs;
  if (hasKernel('DecodeAttention')) {
    const tensors = {
      q: queries,
      k: keys,
      v: values,
      cos,
      sin,
      starts,
      ends,
      keys: cache.keys,
      values: cache.values,
    };
    return { mixed: run<tf.Tensor2D>('DecodeAttention', tensors), cache };
  }
  const [b, kv, slots, dh] = cache.keys.shape;
  const h = queries.shape[1] / dh;
  const positions = tf.reshape(tf.range(0, slots, 1, 'int32'), [1, 1, slots, 1]);
  const own = tf.equal(positions, tf.reshape(ends, [b, 1, 1, 1])); // [b, 1, slots, 1]
  const place = (fresh: tf.Tensor, before: tf.Tensor4D) =>
    tf.where(own, tf.reshape(fresh, [b, kv, 1, dh]), before) as tf.Tensor4D;
  const next = {
    keys: place(rotary(tf.reshape(keys, [b, kv, 1, dh]), cos, sin), cache.keys),
    values: place(values, cache.values),
  };
  const open = tf.logicalAnd(
    tf.greaterEqual(positions, tf.reshape(starts, [b, 1, 1, 1])),
    tf.lessEqual(positions, tf.reshape(ends, [b, 1, 1, 1])),
  );
  const bias = tf.reshape(tf.mul(tf.sub(tf.cast(open, 'float32'), 1), 1e9), [b, 1, 1, slots]) as tf.Tensor4D;
  const rotated = rotary(tf.reshape(queries, [b, h, 1, dh]), cos, sin);
  return { mixed: tf.reshape(attention(rotated, next.keys, next.values, bias), [b, h * dh]), cache: next };
}

/** Rows of a table: weight [v, d], ids int32 [n] → [n, d]. */
export function embed(weight: tf.Tensor2D, ids: tf.Tensor1D): tf.Tensor2D {
  return tf.gather(weight, ids);
}

/** −log softmax(logits)[label] in nats: logits [n, v], labels int32 [n] → [n]. */
export function tokenNll(logits: tf.Tensor2D, labels: tf.Tensor1D): tf.Tensor1D {
  if (hasKernel('TokenNll')) {
    return differentiable(
      [logits],
      (save) => {
        const nll = run<tf.Tensor1D>('TokenNll', { logits, labels });
        save([logits, labels, nll]);
        return nll;
      },
      (dy, [logits, labels, nll]) =>
        run<tf.Tensor>('TokenNllGrad', { dy, logits: logits!, labels: labels!, nll: nll! }),
    );
  }
  const vocabulary = tf.range(0, logits.shape[1], 1, 'int32');
  const chosen = tf.cast(tf.equal(tf.expandDims(labels, 1), vocabulary), 'float32'); // [n, v]
  return tf.sub(tf.logSumExp(logits, 1), tf.sum(tf.mul(logits, chosen), 1));
}
