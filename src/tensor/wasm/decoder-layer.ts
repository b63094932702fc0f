// A whole decoder layer on the wasm heap, forward and backward, as one operation for TF.js: its tape, and the copies and sums
// between smaller operations, took a seventh of a training step.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import {
  type LayerMatrix,
  type LayerWeights,
  layerMatrices,
  type OptionalLayerPart,
  partsOf,
} from '../decoder.ts';
import { isFrozen } from '../frozen-matrix.ts';
import type { FactorName, LayerShape } from '../ops.ts';
import {
  attend,
  attendGrad,
  attentionScratch,
  attentionWeights,
  rotateHeads,
  scoreScale,
} from './causal-attention.ts';
import { bytes, layOut, type Scratch, total } from './heap.ts';
import type { HeapKit } from './heap-kit.ts';
import { type MatrixInfo, timesMatrix, timesTurned } from './matrices.ts';
import { addToRows, sumRows } from './rows.ts';

type Parameters<T> = Readonly<
  Record<Exclude<keyof LayerWeights, OptionalLayerPart>, T> & Partial<Record<OptionalLayerPart, T>>
>;

type Norm = 'inputNorm' | 'postNorm' | 'queryNorm' | 'keyNorm';
type Bias = 'queryBias' | 'keyBias' | 'valueBias' | 'outputBias';

/** A layer's weights, of which matrices may be frozen; and x [b·t, d], cos and sin [t, dh/2], and factors of low-rank terms. */
type LayerInputs = Omit<Parameters<TensorInfo>, LayerMatrix> &
  Readonly<Record<LayerMatrix, MatrixInfo>> &
  Readonly<Record<'x' | 'cos' | 'sin', TensorInfo>> &
  Readonly<Partial<Record<FactorName, TensorInfo>>>;

/** A low-rank term: a [r, in], b [out, r]. */
interface Term {
  readonly a: TensorInfo;
  readonly b: TensorInfo;
  readonly rank: number;
}

/** That of a matrix, if it has one. */
function termOf(inputs: LayerInputs, name: LayerMatrix): Term | null {
  const [a, b] = [inputs[`${name}.a`], inputs[`${name}.b`]];
  return a === undefined || b === undefined ? null : { a, b, rank: a.shape[0]! };
}

/** The greatest rank of a layer's terms; 0 where none has one. */
const rankOf = (inputs: LayerInputs): number =>
  Math.max(...layerMatrices.map((name) => termOf(inputs, name)?.rank ?? 0));

/** What the backward pass needs of the forward pass: queries and keys are rotated, the raw ones not yet normed. */
function keptSizes(shape: LayerShape, inputs: LayerInputs) {
  const { gate, queryNorm } = inputs;
  const [n, d, f] = [shape.b * shape.t, gate.shape[1]!, gate.shape[0]!];
  const [wide, narrow] = [n * shape.h * shape.dh, n * shape.kv * shape.dh];
  return {
    ...{ normed: n * d, q: wide, k: narrow, v: narrow, mixed: wide, attended: n * d, inner: n * d },
    ...{ gate: n * f, up: n * f, weights: attentionWeights(shape) },
    ...(queryNorm === undefined ? { rawQ: 0, rawK: 0 } : { rawQ: wide, rawK: narrow }),
    // x·aᵀ of each low-rank term
    low: n * rankOf(inputs) * layerMatrices.length,
  };
}

/**
 * Products of a sum that is made apart before it is added to the residual. There numbers grow until they are thousands of
 * times those that are added (Sun et al., arXiv 2402.17762), and a sum that starts with such a number rounds each product
 * at its size: over the 576 and 1536 of SmolLM2 that was a digit of the logits.
 */
const longSum = 512;

/** x + W_o·attention(norm(x)), and to that W_down·swiglu(norm(…)). Returns [out [b·t, d], what `decoderLayerGrad` needs], unless that is to compute it anew. */
export function decoderLayer(
  kit: HeapKit,
  scratch: Scratch,
  inputs: LayerInputs,
  shape: LayerShape,
): TensorInfo[] {
  const { heap, vectors } = kit;
  const [n, d] = inputs.x.shape as [number, number];
  const f = inputs.gate.shape[0]!;
  const [wide, narrow] = [shape.h * shape.dh, shape.kv * shape.dh];
  const sizes = keptSizes(shape, inputs);
  const [out, kept] = [heap.allocate([n, d]), heap.allocate([total(sizes)])];
  const rank = rankOf(inputs);
  const work = layOut(scratch.reserve(n * (f + d)), { gated: n * f, sums: n * d });
  const at = layOut(heap.addressOf(kept), sizes);
  const address = (tensor: TensorInfo) => heap.addressOf(tensor);
  const x = address(inputs.x);
  const result = address(out);
  const angles = { cos: address(inputs.cos), sin: address(inputs.sin) };
  const times = (from: number, weight: MatrixInfo, to: number, adds: boolean) =>
    timesMatrix(kit, n, weight, from, to, adds);
  const linear = (from: number, name: LayerMatrix, to: number, adds = false) => {
    times(from, inputs[name], to, adds);
    const term = termOf(inputs, name);
    if (term === null) return;
    const low = at.low + bytes(n * rank * layerMatrices.indexOf(name));
    times(from, term.a, low, false);
    times(low, term.b, to, true);
  };
  /** to [n, d] += from·Wᵀ */
  const addLinear = (from: number, inner: number, name: LayerMatrix, to: number) => {
    if (inner <= longSum) return linear(from, name, to, true);
    linear(from, name, work.sums);
    vectors.accumulate(work.sums, to, n * d);
  };
  const addBias = (bias: TensorInfo | undefined, to: number, width: number) => {
    if (bias !== undefined) addToRows(vectors, address(bias), to, n, width);
  };
  /** A projection of `normed`, each of its heads normed from `raw` on where there is a norm. */
  const heads = (
    name: 'query' | 'key',
    bias: TensorInfo | undefined,
    norm: TensorInfo | undefined,
    raw: number,
    to: number,
    width: number,
  ) => {
    const first = norm === undefined ? to : raw;
    linear(at.normed, name, first);
    addBias(bias, first, width);
    if (norm !== undefined) {
      vectors.normRows(raw, address(norm), to, (n * width) / shape.dh, shape.dh, shape.eps);
    }
  };

  vectors.normRows(x, address(inputs.inputNorm), at.normed, n, d, shape.eps);
  heads('query', inputs.queryBias, inputs.queryNorm, at.rawQ, at.q, wide);
  heads('key', inputs.keyBias, inputs.keyNorm, at.rawK, at.k, narrow);
  linear(at.normed, 'value', at.v);
  addBias(inputs.valueBias, at.v, narrow);
  rotateHeads(kit, shape, shape.h, angles, at.q, at.q, 1, scoreScale(shape));
  rotateHeads(kit, shape, shape.kv, angles, at.k, at.k, 1, 1);
  attend(kit, shape, { q: at.q, k: at.k, v: at.v, out: at.mixed, weights: at.weights });
  vectors.copy(x, at.attended, n * d);
  addLinear(at.mixed, wide, 'output', at.attended);
  addBias(inputs.outputBias, at.attended, d);
  vectors.normRows(at.attended, address(inputs.postNorm), at.inner, n, d, shape.eps);
  linear(at.inner, 'gate', at.gate);
  linear(at.inner, 'up', at.up);
  vectors.swiglu(at.gate, at.up, work.gated, n * f);
  vectors.copy(at.attended, result, n * d);
  addLinear(work.gated, f, 'down', result);
  if (!shape.recompute) return [out, kept];
  heap.free(kept);
  return [out];
}

/**
 * The gradient of `decoderLayer` with respect to x and then the layer's parts, in the order of `partsOf`; where matrices have
 * low-rank terms or are frozen, to x and the factors of those terms alone, a then b, in the order of `layerMatrices`.
 */
export function decoderLayerGrad(
  kit: HeapKit,
  scratch: Scratch,
  inputs: LayerInputs & { readonly dy: TensorInfo; readonly kept?: TensorInfo },
  shape: LayerShape,
): TensorInfo[] {
  const { heap, vectors, product } = kit;
  const [n, d] = inputs.x.shape as [number, number];
  const f = inputs.gate.shape[0]!;
  const [wide, narrow] = [shape.h * shape.dh, shape.kv * shape.dh];
  const dx = heap.allocate([n, d]);
  const rank = rankOf(inputs);
  const factors = layerMatrices.flatMap((name) => [`${name}.a`, `${name}.b`] as const);
  const isWhole = rank === 0 && !layerMatrices.some((name) => isFrozen(inputs[name]));
  const trained = isWhole ? partsOf(inputs) : factors.filter((name) => inputs[name] !== undefined);
  const gradients: Partial<Record<keyof LayerWeights | FactorName, TensorInfo>> = Object.fromEntries(
    trained.map((name) => [name, heap.allocate([...inputs[name]!.shape])]),
  );
  const work = {
    ...{ dgate: n * f, dup: n * f, gated: n * f, dinner: n * d, dattended: n * d },
    ...{ dmixed: n * wide, dq: n * wide, dk: n * narrow, dv: n * narrow },
    ...{ dnormed: n * d, scores: attentionScratch(shape) },
    // Of low-rank terms, and the gradient of a norm that has none.
    ...{ dlow: n * rank * layerMatrices.length, frozen: Math.max(d, shape.dh) },
  };
  // Before room is reserved for the work, which the forward pass does too.
  const kept = inputs.kept ?? keepAgain(kit, scratch, inputs, shape);
  const to = layOut(scratch.reserve(total(work)), work);
  const at = layOut(heap.addressOf(kept), keptSizes(shape, inputs));
  const address = (tensor: TensorInfo) => heap.addressOf(tensor);
  const [x, dy] = [address(inputs.x), address(inputs.dy)];
  const angles = { cos: address(inputs.cos), sin: address(inputs.sin) };
  /** The gradient of from·Wᵀ, `from` [n, inner], by the matrix, or by the factors of its term. */
  const weightGrad = (dout: number, width: number, name: LayerMatrix, from: number, inner: number) => {
    const gradOf = (
      part: LayerMatrix | FactorName,
      dout: number,
      rows: number,
      from: number,
      columns: number,
    ) =>
      product(
        true,
        false,
        rows,
        columns,
        n,
        dout,
        rows,
        from,
        columns,
        address(gradients[part]!),
        columns,
        false,
      );
    if (isWhole) return gradOf(name, dout, width, from, inner);
    const term = termOf(inputs, name);
    if (term === null) return;
    gradOf(`${name}.b`, dout, width, lowAt(at.low, name), term.rank);
    gradOf(`${name}.a`, throughB(dout, name, term), term.rank, from, inner);
  };
  const lowAt = (start: number, name: LayerMatrix) => start + bytes(n * rank * layerMatrices.indexOf(name));
  const computed = new Set<LayerMatrix>();
  /** dout·b of a matrix' term, which its factors and what it reads have in common. */
  const throughB = (dout: number, name: LayerMatrix, { b }: Term) => {
    const low = lowAt(to.dlow, name);
    if (!computed.has(name)) back(dout, b, low, false);
    computed.add(name);
    return low;
  };
  /** dout·W */
  const back = (dout: number, w: MatrixInfo, dfrom: number, adds: boolean) =>
    timesTurned(kit, n, w, dout, dfrom, adds);
  /** And by `from`, to `dfrom`. */
  const inputGrad = (dout: number, name: LayerMatrix, dfrom: number, adds = false) => {
    back(dout, inputs[name], dfrom, adds);
    const term = termOf(inputs, name);
    if (term !== null) back(throughB(dout, name, term), term.a, dfrom, true);
  };
  /** Of a norm over the rows at `from`, to `back`, which may be `dout`. */
  const normGrad = (dout: number, from: number, name: Norm, back: number, rows = n) => {
    const [weight, gradient] = [inputs[name], gradients[name]];
    if (weight === undefined) return;
    const [width, dw] = [weight.shape[0]!, gradient === undefined ? to.frozen : address(gradient)];
    vectors.fill(dw, 0, width);
    vectors.normBackwardRows(dout, from, address(weight), back, dw, rows, width, shape.eps);
  };
  const biasGrad = (dout: number, name: Bias) => {
    const gradient = gradients[name];
    if (gradient !== undefined) sumRows(vectors, dout, address(gradient), n, gradient.shape[0]!);
  };

  inputGrad(dy, 'down', to.dgate);
  vectors.swigluBackward(to.dgate, at.gate, at.up, to.dup, to.gated, n * f); // from the gradient of `gated`
  weightGrad(dy, d, 'down', to.gated, f);
  weightGrad(to.dgate, f, 'gate', at.inner, d);
  weightGrad(to.dup, f, 'up', at.inner, d);
  inputGrad(to.dgate, 'gate', to.dinner);
  inputGrad(to.dup, 'up', to.dinner, true);
  normGrad(to.dinner, at.attended, 'postNorm', to.dattended);
  vectors.accumulate(dy, to.dattended, n * d);
  weightGrad(to.dattended, d, 'output', at.mixed, wide);
  biasGrad(to.dattended, 'outputBias');
  inputGrad(to.dattended, 'output', to.dmixed);
  attendGrad(kit, shape, {
    ...{ dy: to.dmixed, q: at.q, k: at.k, v: at.v, weights: at.weights },
    ...{ dq: to.dq, dk: to.dk, dv: to.dv, scratch: to.scores },
  });
  rotateHeads(kit, shape, shape.h, angles, to.dq, to.dq, -1, scoreScale(shape));
  rotateHeads(kit, shape, shape.kv, angles, to.dk, to.dk, -1, 1);
  normGrad(to.dq, at.rawQ, 'queryNorm', to.dq, n * shape.h);
  normGrad(to.dk, at.rawK, 'keyNorm', to.dk, n * shape.kv);
  biasGrad(to.dq, 'queryBias');
  biasGrad(to.dk, 'keyBias');
  biasGrad(to.dv, 'valueBias');
  weightGrad(to.dq, wide, 'query', at.normed, d);
  weightGrad(to.dk, narrow, 'key', at.normed, d);
  weightGrad(to.dv, narrow, 'value', at.normed, d);
  inputGrad(to.dq, 'query', to.dnormed);
  inputGrad(to.dk, 'key', to.dnormed, true);
  inputGrad(to.dv, 'value', to.dnormed, true);
  normGrad(to.dnormed, x, 'inputNorm', address(dx));
  vectors.accumulate(to.dattended, address(dx), n * d);
  if (inputs.kept === undefined) heap.free(kept);
  return [dx, ...trained.map((name) => gradients[name]!)];
}

/** What a forward pass keeps, by another one. */
function keepAgain(kit: HeapKit, scratch: Scratch, inputs: LayerInputs, shape: LayerShape): TensorInfo {
  const [out, kept] = decoderLayer(kit, scratch, inputs, { ...shape, recompute: 0 });
  kit.heap.free(out!);
  return kept!;
}
