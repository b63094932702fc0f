// RMSNorm on the wasm heap, forward and backward, a row at a time.
import type { TensorInfo } from '@tensorflow/tfjs';
import type { Heap } from './heap.ts';
import type { Vectors } from './vectors.ts';

/** As `rmsNorm`, for `n` rows at an address. */
export function normRows(
  { dot, scaledProduct }: Vectors,
  x: number,
  weight: number,
  out: number,
  n: number,
  d: number,
  eps: number,
): void {
  for (let row = 0; row < 4 * n * d; row += 4 * d) {
    const s = 1 / Math.sqrt(dot(x + row, x + row, d) / d + eps);
    scaledProduct(x + row, weight, out + row, s, d);
  }
}

/** y = x · s · w with s = 1 / √(mean(x²) + eps): x [n, d], weight [d] → [n, d]. */
export function rmsNorm(
  heap: Heap,
  vectors: Vectors,
  x: TensorInfo,
  weight: TensorInfo,
  eps: number,
): TensorInfo {
  const [n, d] = x.shape as [number, number];
  const out = heap.allocate([n, d]);
  normRows(vectors, heap.addressOf(x), heap.addressOf(weight), heap.addressOf(out), n, d, eps);
  return out;
}

/** With g = dy · w: dx = s · (g − x · s² · mean(g · x)), dw = Σ_rows dy · x · s. Returns [dx, dw]. */
export function rmsNormGrad(
  heap: Heap,
  { dot, tripleDot, rmsNormBackward }: Vectors,
  dy: TensorInfo,
  x: TensorInfo,
  weight: TensorInfo,
  eps: number,
): TensorInfo[] {
  const [n, d] = x.shape as [number, number];
  const dx = heap.allocate([n, d]);
  const dw = heap.allocate([d]);
  const [dys, xs, w] = [heap.addressOf(dy), heap.addressOf(x), heap.addressOf(weight)];
  const [dxs, dws] = [heap.addressOf(dx), heap.addressOf(dw)];
  heap.floats(dws, d).fill(0);
  for (let row = 0; row < 4 * n * d; row += 4 * d) {
    const s = 1 / Math.sqrt(dot(xs + row, xs + row, d) / d + eps);
    const pull = (s * s * tripleDot(dys + row, xs + row, w, d)) / d;
    rmsNormBackward(dys + row, xs + row, w, dxs + row, dws, s, pull, d);
  }
  return [dx, dw];
}
