// Causal attention with rotary embedding on the wasm heap, forward and backward, head by head where they lie. A strip of
// rows multiplies only with the columns that its last row sees, so up to half of the work of the full square is left out;
// where tokens are a tree's, these are the pieces of the way from its root.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import { type CausalShape, segmentsOf, type TokenRange } from '../ops.ts';
import { bytes } from './heap.ts';
import type { HeapKit } from './heap-kit.ts';

/** Rows of a strip. */
const stripRows = 64;

/** Rows that see the same columns, but for the last of them, of which each row sees one more than the one before. */
interface Strip {
  readonly row: number;
  readonly rows: number;
  /** In the order in which the strip has them: all that some row sees. */
  readonly pieces: readonly TokenRange[];
  /** Of all pieces. */
  readonly columns: number;
  /** Columns that the first row sees. */
  readonly seen: number;
}

/** The strips of a shape's rows. */
function stripsOf(shape: Pick<CausalShape, 't' | 'segments'>): Strip[] {
  const strips: Strip[] = [];
  for (const { from, count, before } of segmentsOf(shape)) {
    const above = before.reduce((sum, range) => sum + range.count, 0);
    for (let offset = 0; offset < count; offset += stripRows) {
      const rows = Math.min(stripRows, count - offset);
      const pieces = [...before, { from, count: offset + rows }];
      const columns = above + offset + rows;
      strips.push({ row: from + offset, rows, pieces, columns, seen: above + offset + 1 });
    }
  }
  return strips;
}

const numbersOf = ({ rows, columns }: Strip): number => rows * columns;

/** Numbers of the softmax weights of all heads, and of what the backward pass works with. */
export const attentionWeights = (shape: CausalShape): number =>
  shape.b * shape.h * stripsOf(shape).reduce((sum, strip) => sum + numbersOf(strip), 0);
export const attentionScratch = (shape: CausalShape): number => Math.max(...stripsOf(shape).map(numbersOf));

/** Addresses of angles [t, dh/2]. */
interface Angles {
  readonly cos: number;
  readonly sin: number;
}

/**
 * Turns each of `heads` heads of the rows at `from` [b·t, heads·dh] by the angles of its place (direction 1) or back (−1),
 * times `scale`, to `to`, which may be the same.
 */
export function rotateHeads(
  { strided }: HeapKit,
  { b, t, dh }: CausalShape,
  heads: number,
  { cos, sin }: Angles,
  from: number,
  to: number,
  direction: 1 | -1,
  scale: number,
): void {
  const wide = bytes(heads * dh);
  for (let sequence = 0; sequence < b; sequence++) {
    for (let head = 0; head < heads; head++) {
      const own = sequence * t * wide + bytes(head * dh);
      strided.rotateRows(from + own, wide, cos, sin, to + own, wide, dh / 2, t, direction, scale);
    }
  }
}

/** What scores are multiplied with; rotated queries are by then. */
export const scoreScale = ({ dh }: CausalShape): number => 1 / Math.sqrt(dh);

/**
 * softmax(q̂·k̂ᵀ, causal)·v, q̂ [b·t, h·dh] and k̂ [b·t, kv·dh] rotated and q̂ scaled, v as k̂: writes `out`, like q̂, and the
 * softmax weights by strips (`attentionWeights`).
 */
export function attend(
  { vectors, product }: HeapKit,
  shape: CausalShape,
  { q, k, v, out, weights }: Readonly<Record<'q' | 'k' | 'v' | 'out' | 'weights', number>>,
): void {
  const { b, t, h, kv, dh } = shape;
  const [wide, narrow, group] = [h * dh, kv * dh, h / kv];
  const strips = stripsOf(shape);
  let w = weights;
  for (let i = 0; i < b * h; i++) {
    const [sequence, head] = [Math.floor(i / h), i % h];
    const own = bytes(sequence * t * wide + head * dh);
    const shared = bytes(sequence * t * narrow + Math.floor(head / group) * dh);
    for (const { row, rows, pieces, columns, seen } of strips) {
      const at = own + bytes(row * wide);
      let piece = w;
      for (const { from, count } of pieces) {
        const keys = k + shared + bytes(from * narrow);
        product(false, true, rows, count, dh, q + at, wide, keys, narrow, piece, columns, false);
        piece += bytes(count);
      }
      vectors.softmaxRows(w, rows, columns, seen, 1);
      piece = w;
      for (const { from, count } of pieces) {
        const values = v + shared + bytes(from * narrow);
        product(false, false, rows, dh, count, piece, columns, values, narrow, out + at, wide, piece > w);
        piece += bytes(count);
      }
      w += bytes(rows * columns);
    }
  }
}

/**
 * The gradient of `attend`. With P the softmax weights: dP = dy·vᵀ, dS = P ∘ (dP − rowsum(dP ∘ P)), dq̂ = dS·k̂,
 * dk̂ = dSᵀ·q̂, dv = Pᵀ·dy. `scratch` has room for `attentionScratch` numbers.
 */
export function attendGrad(
  { vectors, product }: HeapKit,
  shape: CausalShape,
  {
    dy,
    q,
    k,
    v,
    weights,
    dq,
    dk,
    dv,
    scratch,
  }: Readonly<Record<'dy' | 'q' | 'k' | 'v' | 'weights' | 'dq' | 'dk' | 'dv' | 'scratch', number>>,
): void {
  const { b, t, h, kv, dh } = shape;
  const [wide, narrow, group] = [h * dh, kv * dh, h / kv];
  const strips = stripsOf(shape);
  vectors.fill(dk, 0, b * t * narrow);
  vectors.fill(dv, 0, b * t * narrow);
  let w = weights;
  for (let i = 0; i < b * h; i++) {
    const [sequence, head] = [Math.floor(i / h), i % h];
    const own = bytes(sequence * t * wide + head * dh);
    const shared = bytes(sequence * t * narrow + Math.floor(head / group) * dh);
    for (const { row, rows, pieces, columns } of strips) {
      const at = own + bytes(row * wide);
      let offset = 0;
      for (const { from, count } of pieces) {
        const values = v + shared + bytes(from * narrow);
        product(
          false,
          true,
          rows,
          count,
          dh,
          dy + at,
          wide,
          values,
          narrow,
          scratch + offset,
          columns,
          false,
        );
        offset += bytes(count);
      }
      vectors.softmaxBackwardRows(w, scratch, rows, columns);
      offset = 0;
      for (const { from, count } of pieces) {
        const place = shared + bytes(from * narrow);
        const [scores, shares] = [scratch + offset, w + offset];
        product(false, false, rows, dh, count, scores, columns, k + place, narrow, dq + at, wide, offset > 0);
        product(true, false, count, dh, rows, scores, columns, q + at, wide, dk + place, narrow, true);
        product(true, false, count, dh, rows, shares, columns, dy + at, wide, dv + place, narrow, true);
        offset += bytes(count);
      }
      w += bytes(rows * columns);
    }
  }
}

/**
 * softmax(rot(q)·rot(k)ᵀ/√dh, causal)·v for b sequences of t tokens: q [b·t, h·dh], k and v [b·t, kv·dh], cos and sin
 * [t, dh/2]. Returns [out [b·t, h·dh], the softmax weights, rot(q)/√dh, rot(k)].
 */
export function causalAttention(
  kit: HeapKit,
  { q, k, v, cos, sin }: Readonly<Record<'q' | 'k' | 'v' | 'cos' | 'sin', TensorInfo>>,
  shape: CausalShape,
): TensorInfo[] {
  const { heap } = kit;
  const [out, turnedQ, turnedK] = [heap.allocate(q.shape), heap.allocate(q.shape), heap.allocate(k.shape)];
  const weights = heap.allocate([attentionWeights(shape)]);
  const at = (tensor: TensorInfo) => heap.addressOf(tensor);
  const angles = { cos: at(cos), sin: at(sin) };
  rotateHeads(kit, shape, shape.h, angles, at(q), at(turnedQ), 1, scoreScale(shape));
  rotateHeads(kit, shape, shape.kv, angles, at(k), at(turnedK), 1, 1);
  attend(kit, shape, { q: at(turnedQ), k: at(turnedK), v: at(v), out: at(out), weights: at(weights) });
  return [out, weights, turnedQ, turnedK];
}

/** The gradient of `causalAttention` from what it returned (`q` and `k` rotated). Returns [dq, dk, dv]. */
export function causalAttentionGrad(
  kit: HeapKit,
  {
    dy,
    q,
    k,
    v,
    cos,
    sin,
    weights,
  }: Readonly<Record<'dy' | 'q' | 'k' | 'v' | 'cos' | 'sin' | 'weights', TensorInfo>>,
  shape: CausalShape,
): TensorInfo[] {
  const { heap } = kit;
  const [dq, dk, dv] = [heap.allocate(q.shape), heap.allocate(k.shape), heap.allocate(v.shape)];
  const scratch = heap.allocate([attentionScratch(shape)]);
  const at = (tensor: TensorInfo) => heap.addressOf(tensor);
  attendGrad(kit, shape, {
    ...{ dy: at(dy), q: at(q), k: at(k), v: at(v), weights: at(weights) },
    ...{ dq: at(dq), dk: at(dk), dv: at(dv), scratch: at(scratch) },
  });
  heap.free(scratch);
  const angles = { cos: at(cos), sin: at(sin) };
  rotateHeads(kit, shape, shape.h, angles, at(dq), at(dq), -1, scoreScale(shape));
  rotateHeads(kit, shape, shape.kv, angles, at(dk), at(dk), -1, 1);
  return [dq, dk, dv];
}
