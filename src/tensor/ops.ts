// The decoder's operations, each with exact gradients: one fused kernel where the backend has it (wasm), else
// composed from TF.js' own operations. All are synchronous and work inside tidy and variableGrads.
import {
  type LayerAdapter,
  type LayerMatrix,
  type LayerWeights,
  type LowRank,
  layerMatrices,
  type Matrix,
  partsOf,
} from './decoder.ts';
import { type FrozenMatrix, isFrozen, readRow } from './frozen-matrix.ts';
import './gradients.ts';
import tf from './tfjs.cjs';

type Save = (tensors: tf.Tensor[]) => void;

const hasKernel = (name: string): boolean => tf.getKernel(name, tf.getBackend()) !== undefined;

/** Runs one kernel by name; `Out` says whether it returns one tensor or several. TF.js hands attributes on as they are. */
const run = <Out extends tf.Tensor | tf.Tensor[]>(
  kernel: string,
  inputs: Record<string, tf.Tensor>,
  attrs: Record<string, number | number[] | FrozenLayer | FrozenMatrix> = {},
): Out => tf.engine().runKernel(kernel, inputs, attrs as tf.NamedAttrMap) as Out;

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

/** x·wᵀ, and x·(b·a)ᵀ of a low-rank term: x [n, in], w [out, in] (Hugging Face layout) → [n, out]. A frozen w has no gradient. */
export function linear(x: tf.Tensor2D, w: Matrix, term?: LowRank): tf.Tensor2D {
  const whole: tf.Tensor2D = isFrozen(w)
    ? differentiable(
        [x],
        () => run<tf.Tensor2D>('FrozenLinear', { x }, { w }),
        (dy) => run<tf.Tensor>('FrozenLinearGrad', { dy }, { w }),
      )
    : tf.matMul(x, w, false, true);
  if (term === undefined) return whole;
  return tf.add(whole, linear(linear(term.drop?.(x) ?? x, term.a), term.b)) as tf.Tensor2D;
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
  const [b, h, t, dh] = q.shape;
  const [, kv, s] = k.shape;
  const grouped = tf.reshape(q, [b, kv, (h / kv) * t, dh]);
  const scores = tf.reshape(tf.matMul(grouped, k, false, true), [b, h, t, s]);
  const weights = tf.softmax(tf.add(tf.mul(scores, 1 / Math.sqrt(dh)), bias)); // [b, h, t, s]
  return tf.reshape(tf.matMul(tf.reshape(weights, [b, kv, (h / kv) * t, s]), v), [b, h, t, dh]);
}

/** Sizes of causal attention: b sequences of t tokens, h query heads and kv key/value heads of dh numbers. */
export interface CausalShape {
  readonly b: number;
  readonly t: number;
  readonly h: number;
  readonly kv: number;
  readonly dh: number;
  /**
   * Where the t tokens of the one sequence (b is 1) are a tree's and not a line's: its segments, four numbers each, an
   * ancestor before its descendants. They are the first token, the one after the last, the segment that it continues (−1:
   * none), and how many tokens of that one come before it. A token sees those on the way to it, and itself.
   */
  readonly segments?: readonly number[];
}

/** Tokens of a tree in one row. */
export interface TreeLayout {
  /** As of `CausalShape`. */
  readonly segments: readonly number[];
  /** [t] Tokens on the way to each. */
  readonly positions: Int32Array;
}

/** A run of tokens, from one on and so many. */
export interface TokenRange {
  readonly from: number;
  readonly count: number;
}

/** The segments of a shape with what comes before each, root first; one that is all of it where it is a line. */
export function* segmentsOf({
  t,
  segments = [0, t, -1, 0],
}: Pick<CausalShape, 't' | 'segments'>): Generator<TokenRange & { readonly before: readonly TokenRange[] }> {
  for (let at = 0; at < segments.length; at += 4) {
    const [from, end] = [segments[at]!, segments[at + 1]!];
    const before: TokenRange[] = [];
    for (let child = at; segments[child + 2]! >= 0; child = 4 * segments[child + 2]!) {
      before.unshift({ from: segments[4 * segments[child + 2]!]!, count: segments[child + 3]! });
    }
    yield { from, count: end - from, before };
  }
}

/** A shape as a kernel's attributes. */
const attributesOf = ({ segments, ...sizes }: CausalShape): Record<string, number | number[]> =>
  segments === undefined ? { ...sizes } : { ...sizes, segments: [...segments] };

/** Sizes of a decoder layer. */
export interface LayerShape extends CausalShape {
  readonly eps: number;
  /** 1: the backward pass computes the forward pass again, of which nothing but x is kept (Chen et al., arXiv 1604.06174). */
  readonly recompute?: number;
}

/** Those matrices of a layer that are frozen: a kernel gets them as an attribute. */
export type FrozenLayer = Readonly<Partial<Record<LayerMatrix, FrozenMatrix>>>;

/** A kernel's name of one factor of a matrix' low-rank term. */
export type FactorName = `${(typeof layerMatrices)[number]}.${'a' | 'b'}`;

/** What a token's score in the softmax gets added where it must not count: its weight is exactly 0 in float32. */
export const maskedScore = -1e9;

/**
 * `attention` of rotated queries and keys in which each token sees those before it and itself, on flat tokens (of a tree:
 * see `CausalShape`):
 * q [b·t, h·dh], k and v [b·t, kv·dh], cos and sin [1, 1, t, dh/2] (they get no gradient) → [b·t, h·dh].
 */
export function causalAttention(
  q: tf.Tensor2D,
  k: tf.Tensor2D,
  v: tf.Tensor2D,
  cos: tf.Tensor4D,
  sin: tf.Tensor4D,
  shape: CausalShape,
): tf.Tensor2D {
  const { b, t, h, kv, dh } = shape;
  if (hasKernel('CausalAttention')) {
    const attrs = attributesOf(shape);
    return differentiable(
      [q, k, v],
      (save) => {
        const [out, weights, turnedQ, turnedK] = run<tf.Tensor[]>(
          'CausalAttention',
          { q, k, v, cos, sin },
          attrs,
        );
        save([turnedQ!, turnedK!, v, cos, sin, weights!]);
        return out as tf.Tensor2D;
      },
      (dy, [q, k, v, cos, sin, weights]) => {
        const inputs = { dy, q: q!, k: k!, v: v!, cos: cos!, sin: sin!, weights: weights! };
        return run<tf.Tensor[]>('CausalAttentionGrad', inputs, attrs);
      },
    );
  }
  const split = (x: tf.Tensor2D, heads: number) =>
    tf.transpose(tf.reshape(x, [b, t, heads, dh]), [0, 2, 1, 3]) as tf.Tensor4D;
  const bias = new Float32Array(t * t).fill(maskedScore);
  for (const { from, count, before } of segmentsOf(shape)) {
    for (let i = from; i < from + count; i++) {
      for (const seen of [...before, { from, count: i + 1 - from }]) {
        bias.fill(0, i * t + seen.from, i * t + seen.from + seen.count);
      }
    }
  }
  const mixed = attention(
    rotary(split(q, h), cos, sin),
    rotary(split(k, kv), cos, sin),
    split(v, kv),
    tf.tensor4d(bias, [1, 1, t, t]),
  ); // [b, h, t, dh]
  return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [b * t, h * dh]);
}

/**
 * One decoder layer as one operation, on flat tokens x [b·t, d] with cos and sin [1, 1, t, dh/2] (they get no gradient):
 * x + attention(norm(x)) and to that swiglu(norm(…)), each through its matrices; with biases and norms of the heads where
 * the layer has them. Null where the backend has no kernel for it, or a low-rank term drops some of what it reads. Where a
 * matrix is frozen nothing but x and low-rank terms has a gradient.
 */
export function fusedLayer(
  x: tf.Tensor2D,
  layer: LayerWeights,
  cos: tf.Tensor4D,
  sin: tf.Tensor4D,
  shape: LayerShape,
  adapter?: LayerAdapter,
): tf.Tensor2D | null {
  if (!hasKernel('DecoderLayer')) return null;
  if (Object.values(adapter ?? {}).some(({ drop }) => drop !== undefined)) return null;
  const frozen: Partial<Record<LayerMatrix, FrozenMatrix>> = {};
  const weights: Record<string, tf.Tensor> = {};
  for (const name of partsOf(layer)) {
    const part = layer[name]!;
    if (isFrozen(part)) frozen[name as LayerMatrix] = part;
    else weights[name] = part;
  }
  const attrs = { ...attributesOf(shape), frozen };
  const factors = factorsOf(adapter);
  // Where there is an adapter it alone is trained, and none of the weights has a gradient.
  const isWhole = adapter === undefined && Object.keys(frozen).length === 0;
  const trained: Record<string, tf.Tensor> = isWhole ? weights : factors;
  const inputs = { x, ...weights, ...factors, cos, sin };
  return differentiable(
    [x, ...Object.values(trained)],
    (save) => {
      const [out, kept] = run<tf.Tensor[]>('DecoderLayer', inputs, attrs);
      save([...Object.values(inputs), ...(kept === undefined ? [] : [kept])]);
      return out as tf.Tensor2D;
    },
    (dy, saved) => {
      const names = [...Object.keys(inputs), 'kept'];
      const named = Object.fromEntries(saved.map((tensor, i) => [names[i]!, tensor]));
      return run<tf.Tensor[]>('DecoderLayerGrad', { dy, ...named }, attrs);
    },
  );
}

/** The factors of a layer's low-rank terms by their kernel's names, in the order in which gradients come. */
function factorsOf(adapter: LayerAdapter = {}): Partial<Record<FactorName, tf.Tensor2D>> {
  const terms = layerMatrices.flatMap((name) => {
    const term = adapter[name];
    return term === undefined ? [] : [[`${name}.a`, term.a] as const, [`${name}.b`, term.b] as const];
  });
  return Object.fromEntries(terms);
}

/** Rows of a table: weight [v, d], ids int32 [n] → [n, d]. */
export function embed(weight: Matrix, ids: tf.Tensor1D): tf.Tensor2D {
  if (!isFrozen(weight)) return tf.gather(weight, ids);
  const [, d] = weight.shape;
  const rows = new Float32Array(ids.size * d);
  ids.dataSync<'int32'>().forEach((id, i) => {
    readRow(weight, id, rows.subarray(i * d, (i + 1) * d));
  });
  return tf.tensor2d(rows, [ids.size, d]);
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

/** The numbers of one step of AdamW, the same for all elements of a parameter. */
export interface AdamWStep {
  readonly beta1: number;
  /** (1 − β₁) times what clipping leaves of a gradient. */
  readonly gradientShare: number;
  readonly beta2: number;
  /** (1 − β₂) times the square of what clipping leaves of a gradient. */
  readonly squareShare: number;
  /** 1 − η·λ */
  readonly keepShare: number;
  /** η / (1 − β₁ᵗ) */
  readonly rate: number;
  /** 1 / (1 − β₂ᵗ) */
  readonly correction: number;
  readonly epsilon: number;
}

/** A parameter and its moments, which no other tensor may share data with: a step may write into them. */
export interface AdamWState {
  readonly parameter: tf.Variable;
  readonly mean: tf.Variable;
  readonly square: tf.Variable;
}

/**
 * Moves a parameter one step of AdamW against its gradient (as many numbers) and updates its moments: see
 * `createAdamW` in src/training. Leaves no tensor behind.
 */
export function adamWStep(
  { parameter, mean, square }: AdamWState,
  gradient: Float32Array,
  step: AdamWStep,
): void {
  tf.tidy(() => {
    const g = tf.tensor(gradient, parameter.shape);
    if (hasKernel('AdamW')) {
      const attrs = { ...step };
      // The moments are nobody else's: the kernel writes into them.
      parameter.assign(run<tf.Tensor>('AdamW', { x: parameter, dy: g, mean, square }, attrs));
      return;
    }
    mean.assign(tf.add(tf.mul(mean, step.beta1), tf.mul(g, step.gradientShare)));
    square.assign(tf.add(tf.mul(square, step.beta2), tf.mul(tf.square(g), step.squareShare)));
    const width = tf.add(tf.sqrt(tf.mul(square, step.correction)), step.epsilon);
    const move = tf.div(tf.mul(mean, step.rate), width);
    parameter.assign(tf.sub(tf.mul(parameter, step.keepShare), move));
  });
}
