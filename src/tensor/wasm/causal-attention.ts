// Causal attention with rotary embedding on the wasm heap, forward and backward, head by head where they lie. A strip of
// rows multiplies only with the columns that its last row sees, so up to half of the work of the full square is left out.
import type { TensorInfo } from '@tensorflow/tfjs';
import type { CausalShape } from '../ops.ts';
import { bytes } from './heap.ts';
import type { HeapKit } from './heap-kit.ts';

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

/** Numbers of the softmax weights of all heads, and of what the backward pass works with. */
export const attentionWeights = ({ b, t, h }: CausalShape): number => b * h * weightsOf(t);
export const attentionScratch = ({ t }: CausalShape): number => Math.min(stripRows, t) * t;

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
  { b, t, h, kv, dh }: CausalShape,
  { q, k, v, out, weights }: Readonly<Record<'q' | 'k' | 'v' | 'out' | 'weights', number>>,
): void {
  const [wide, narrow, group] = [h * dh, kv * dh, h / kv];
  const strips = stripsOf(t);
  let w = weights;
  for (let i = 0; i < b * h; i++) {
    const [sequence, head] = [Math.floor(i / h), i % h];
    const own = bytes(sequence * t * wide + head * dh);
    const shared = bytes(sequence * t * narrow + Math.floor(head / group) * dh);
    for (const { row, rows, columns } of strips) {
      const at = own + bytes(row * wide);
      product(false, true, rows, columns, dh, q + at, wide, k + shared, narrow, w, columns, false);
      vectors.softmaxRows(w, rows, columns, row + 1, 1);
      product(false, false, rows, dh, columns, w, columns, v + shared, narrow, out + at, wide, false);
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
  { b, t, h, kv, dh }: CausalShape,
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
  const [wide, narrow, group] = [h * dh, kv * dh, h / kv];
  const strips = stripsOf(t);
  vectors.fill(dk, 0, b * t * narrow);
  vectors.fill(dv, 0, b * t * narrow);
  let w = weights;
  for (let i = 0; i < b * h; i++) {
    const [sequence, head] = [Math.floor(i / h), i % h];
    const own = bytes(sequence * t * wide + head * dh);
    const shared = bytes(sequence * t * narrow + Math.floor(head / group) * dh);
    for (const { row, rows, columns } of strips) {
      const at = own + bytes(row * wide);
      product(false, true, rows, columns, dh, dy + at, wide, v + shared, narrow, scratch, columns, false);
      vectors.softmaxBackwardRows(w, scratch, rows, columns);
      product(false, false, rows, dh, columns, scratch, columns, k + shared, narrow, dq + at, wide, false);
      product(true, false, columns, dh, rows, scratch, columns, q + at, wide, dk + shared, narrow, true);
      product(true, false, columns, dh, rows, w, columns, dy + at, wide, dv + shared, narrow, true);
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
