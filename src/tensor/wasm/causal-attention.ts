// Causal attention with rotary embedding on the wasm heap, forward and backward: one head of one sequence after the
// other, brought together so that its products stay in cache. A strip of rows multiplies only with the columns that
// its last row sees, so up to half of the work of the full square is left out.
import type { TensorInfo } from '@tensorflow/tfjs';
import type { CausalShape } from '../ops.ts';
import { bytes } from './heap.ts';
import type { HeapKit } from './kit.ts';

/** Rows of a strip. */
const stripRows = 64;

/** Strips of t rows: the first row, how many, and the columns they see. */
function stripsOf(t: number): { row: number; rows: number; columns: number }[] {
  return Array.from({ length: Math.ceil(t / stripRows) }, (_, i) => {
    const row = i * stripRows;
    const rows = Math.min(stripRows, t - row);
    return { row, rows, columns: row + rows };
  });
}

/** Numbers of all strips of one head's softmax weights. */
const weightsOf = (t: number): number =>
  stripsOf(t).reduce((sum, { rows, columns }) => sum + rows * columns, 0);

/**
 * softmax(rot(q)·rot(k)ᵀ/√dh, causal)·v for b sequences of t tokens: q [b·t, h·dh], k and v [b·t, kv·dh], cos and sin
 * [t, dh/2]. Returns [out [b·t, h·dh], the softmax weights by strips [b·h, weightsOf(t)]].
 */
export function causalAttention(
  { heap, vectors, strided, product }: HeapKit,
  { q, k, v, cos, sin }: Readonly<Record<'q' | 'k' | 'v' | 'cos' | 'sin', TensorInfo>>,
  { b, t, h, kv, dh }: CausalShape,
): TensorInfo[] {
  const [group, half, share] = [h / kv, dh / 2, weightsOf(t)];
  const out = heap.allocate(q.shape);
  const weights = heap.allocate([b * h, share]);
  const scratch = heap.allocate([4 * t * dh]);
  const at = heap.addressOf(scratch);
  const [keys, values, queries, mixed] = [0, 1, 2, 3].map((i) => at + bytes(i * t * dh)) as Four;
  const [qs, ks, vs, outs] = [q, k, v, out].map((tensor) => heap.addressOf(tensor)) as Four;
  const [ws, cosines, sines] = [weights, cos, sin].map((tensor) => heap.addressOf(tensor)) as Three;
  const [wide, narrow, row] = [bytes(h * dh), bytes(kv * dh), bytes(dh)];
  const strips = stripsOf(t);
  for (let i = 0; i < b * kv; i++) {
    const [sequence, head] = [Math.floor(i / kv), i % kv];
    const mine = bytes(sequence * t * kv * dh + head * dh);
    strided.rotateRows(ks + mine, narrow, cosines, sines, keys, row, half, t, 1, 1);
    strided.copyRows(vs + mine, narrow, values, row, dh, t);
    for (let j = head * group; j < (head + 1) * group; j++) {
      const own = bytes(sequence * t * h * dh + j * dh);
      strided.rotateRows(qs + own, wide, cosines, sines, queries, row, half, t, 1, 1 / Math.sqrt(dh));
      let w = ws + bytes((sequence * h + j) * share);
      for (const { row: first, rows, columns } of strips) {
        product(false, true, rows, columns, dh, queries + bytes(first * dh), keys, w);
        vectors.softmaxRows(w, rows, columns, first + 1, 1);
        product(false, false, rows, dh, columns, w, values, mixed + bytes(first * dh));
        w += bytes(rows * columns);
      }
      strided.copyRows(mixed, row, outs + own, wide, dh, t);
    }
  }
  heap.free(scratch);
  return [out, weights];
}

type Three = [number, number, number];
type Four = [number, number, number, number];

/**
 * With P the softmax weights and q̂, k̂ the rotated queries (scaled by 1/√dh) and keys: dP = dy·vᵀ,
 * dS = P ∘ (dP − rowsum(dP ∘ P)), dq̂ = dS·k̂, dk̂ = dSᵀ·q̂, dv = Pᵀ·dy; dq and dk are turned back. Returns [dq, dk, dv].
 */
export function causalAttentionGrad(
  { heap, vectors, strided, product }: HeapKit,
  inputs: Readonly<Record<'dy' | 'q' | 'k' | 'v' | 'cos' | 'sin' | 'weights', TensorInfo>>,
  { b, t, h, kv, dh }: CausalShape,
): TensorInfo[] {
  const { dy, q, k, v, cos, sin, weights } = inputs;
  const [group, half, share] = [h / kv, dh / 2, weightsOf(t)];
  const [dq, dk, dv] = [heap.allocate(q.shape), heap.allocate(k.shape), heap.allocate(v.shape)] as const;
  const scratch = heap.allocate([8 * t * dh + stripRows * t]);
  const at = heap.addressOf(scratch);
  const part = (i: number) => at + bytes(i * t * dh);
  const [keys, values, queries, upstream] = [part(0), part(1), part(2), part(3)];
  const [queryGrad, keyGrad, valueGrad, added, scores] = [part(4), part(5), part(6), part(7), part(8)];
  const [dys, qs, ks, vs] = [dy, q, k, v].map((tensor) => heap.addressOf(tensor)) as Four;
  const [ws, cosines, sines] = [weights, cos, sin].map((tensor) => heap.addressOf(tensor)) as Three;
  const [dqs, dks, dvs] = [dq, dk, dv].map((tensor) => heap.addressOf(tensor)) as Three;
  const [wide, narrow, row] = [bytes(h * dh), bytes(kv * dh), bytes(dh)];
  const factor = 1 / Math.sqrt(dh);
  const strips = stripsOf(t);
  for (let i = 0; i < b * kv; i++) {
    const [sequence, head] = [Math.floor(i / kv), i % kv];
    const mine = bytes(sequence * t * kv * dh + head * dh);
    strided.rotateRows(ks + mine, narrow, cosines, sines, keys, row, half, t, 1, 1);
    strided.copyRows(vs + mine, narrow, values, row, dh, t);
    vectors.fill(keyGrad, 0, t * dh);
    vectors.fill(valueGrad, 0, t * dh);
    for (let j = head * group; j < (head + 1) * group; j++) {
      const own = bytes(sequence * t * h * dh + j * dh);
      strided.rotateRows(qs + own, wide, cosines, sines, queries, row, half, t, 1, factor);
      strided.copyRows(dys + own, wide, upstream, row, dh, t);
      let w = ws + bytes((sequence * h + j) * share);
      for (const { row: first, rows, columns } of strips) {
        const [query, dout] = [queries + bytes(first * dh), upstream + bytes(first * dh)];
        product(false, true, rows, columns, dh, dout, values, scores);
        vectors.softmaxBackwardRows(w, scores, rows, columns);
        product(false, false, rows, dh, columns, scores, keys, queryGrad + bytes(first * dh));
        product(true, false, columns, dh, rows, scores, query, added);
        vectors.accumulate(added, keyGrad, columns * dh);
        product(true, false, columns, dh, rows, w, dout, added);
        vectors.accumulate(added, valueGrad, columns * dh);
        w += bytes(rows * columns);
      }
      strided.rotateRows(queryGrad, row, cosines, sines, dqs + own, wide, half, t, -1, factor);
    }
    strided.rotateRows(keyGrad, row, cosines, sines, dks + mine, narrow, half, t, -1, 1);
    strided.copyRows(valueGrad, row, dvs + mine, narrow, dh, t);
  }
  heap.free(scratch);
  return [dq, dk, dv];
}
