// Attention on the wasm heap: for each key/value head, product, masked softmax, product while it is in cache.
import type { TensorInfo } from '@tensorflow/tfjs';
import type { Heap } from './heap.ts';
import type { Product } from './product.ts';
import type { Vectors } from './vectors.ts';

/** Biases below this count as a mask: the weight is exactly 0. */
const masked = -1e8;

/** Sizes of one call. The h/kv query heads that share a key head lie together: `rows` = h/kv · t of them. */
interface Sizes {
  readonly b: number;
  readonly kv: number;
  readonly rows: number;
  readonly t: number;
  readonly s: number;
  readonly dh: number;
}

function sizesOf(q: TensorInfo, k: TensorInfo): Sizes {
  const [b, h, t, dh] = q.shape as [number, number, number, number];
  const [, kv, s] = k.shape as [number, number, number, number];
  return { b, kv, rows: (h / kv) * t, t, s, dh };
}

/** softmax(q·kᵀ/√dh + bias)·v. Returns [out [b, h, t, dh], weights [b, h, t, s]]. */
export function attention(
  heap: Heap,
  vectors: Vectors,
  product: Product,
  q: TensorInfo,
  k: TensorInfo,
  v: TensorInfo,
  bias: TensorInfo,
): TensorInfo[] {
  const { b, kv, rows, t, s, dh } = sizesOf(q, k);
  const out = heap.allocate(q.shape);
  const weights = heap.allocate([b, q.shape[1]!, t, s]);
  const [qs, ks, vs] = [heap.addressOf(q), heap.addressOf(k), heap.addressOf(v)];
  const [outs, ws] = [heap.addressOf(out), heap.addressOf(weights)];
  for (let batch = 0; batch < b; batch++) {
    const rowBias = heap.addressOf(bias) + (bias.shape[0] === 1 ? 0 : 4 * batch * t * s);
    const open = openSpans(heap.floats(rowBias, t * s), t, s);
    for (let i = batch * kv; i < (batch + 1) * kv; i++) {
      const [query, key, w] = [4 * i * rows * dh, 4 * i * s * dh, ws + 4 * i * rows * s];
      product(false, true, rows, s, dh, qs + query, ks + key, w);
      softmaxRows(heap, vectors, w, rowBias, open, rows, t, s, 1 / Math.sqrt(dh));
      product(false, false, rows, dh, s, w, vs + key, outs + query);
    }
  }
  return [out, weights];
}

/** For each row of a bias [t, s] the first open column and the one after the last: 2 · t numbers. */
function openSpans(bias: Float32Array, t: number, s: number): Int32Array {
  const spans = new Int32Array(2 * t);
  for (let row = 0; row < t; row++) {
    let first = row * s;
    let end = first + s;
    while (end > first && bias[end - 1]! < masked) end--;
    while (first < end && bias[first]! < masked) first++;
    spans[2 * row] = first - row * s;
    spans[2 * row + 1] = end - row * s;
  }
  return spans;
}

/** Turns raw scores at `w` into weights, in place: exact zeros outside the open span. */
function softmaxRows(
  heap: Heap,
  { scaleAndBias, exponentiate, scale }: Vectors,
  w: number,
  bias: number,
  open: Int32Array,
  rows: number,
  t: number,
  s: number,
  factor: number,
): void {
  const weights = heap.floats(w, rows * s);
  for (let row = 0; row < rows; row++) {
    const time = row % t;
    const [first, end] = [open[2 * time]!, open[2 * time + 1]!];
    const at = w + 4 * (row * s + first);
    const length = end - first;
    const max = scaleAndBias(at, bias + 4 * (time * s + first), factor, length);
    scale(at, 1 / exponentiate(at, max, length), length);
    weights.fill(0, row * s, row * s + first);
    weights.fill(0, row * s + end, (row + 1) * s);
  }
}

/**
 * With P the weights: dP = dy·vᵀ, dS = P ∘ (dP − rowsum(dP ∘ P)) / √dh, dq = dS·k, dk = dSᵀ·q, dv = Pᵀ·dy.
 * Returns [dq, dk, dv].
 */
export function attentionGrad(
  heap: Heap,
  { dot, softmaxBackward }: Vectors,
  product: Product,
  dy: TensorInfo,
  q: TensorInfo,
  k: TensorInfo,
  v: TensorInfo,
  weights: TensorInfo,
): TensorInfo[] {
  const { b, kv, rows, s, dh } = sizesOf(q, k);
  const [dq, dk, dv] = [heap.allocate(q.shape), heap.allocate(k.shape), heap.allocate(v.shape)];
  const scratch = heap.allocate([rows, s]); // dP, then dS, of one key head
  const [dys, qs, ks, vs] = [heap.addressOf(dy), heap.addressOf(q), heap.addressOf(k), heap.addressOf(v)];
  const [dqs, dks, dvs] = [heap.addressOf(dq), heap.addressOf(dk), heap.addressOf(dv)];
  const [ws, ds] = [heap.addressOf(weights), heap.addressOf(scratch)];
  for (let i = 0; i < b * kv; i++) {
    const [query, key, w] = [4 * i * rows * dh, 4 * i * s * dh, ws + 4 * i * rows * s];
    product(false, true, rows, s, dh, dys + query, vs + key, ds);
    for (let row = 0; row < 4 * rows * s; row += 4 * s) {
      softmaxBackward(w + row, ds + row, dot(w + row, ds + row, s), 1 / Math.sqrt(dh), s);
    }
    product(false, false, rows, dh, s, ds, ks + key, dqs + query);
    product(true, false, s, dh, rows, ds, qs + query, dks + key);
    product(true, false, s, dh, rows, w, dys + query, dvs + key);
  }
  heap.free(scratch);
  return [dq, dk, dv];
}
