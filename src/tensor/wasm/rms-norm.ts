// RMSNorm on the wasm heap, forward and backward.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { Heap } from './heap.ts';
import type { Vectors } from './vectors.ts';

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
  vectors.normRows(heap.addressOf(x), heap.addressOf(weight), heap.addressOf(out), n, d, eps);
  return out;
}

/** With g = dy · w: dx = s · (g − x · s² · mean(g · x)), dw = Σ_rows dy · x · s. Returns [dx, dw]. */
export function rmsNormGrad(
  heap: Heap,
  vectors: Vectors,
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
  vectors.fill(dws, 0, d);
  vectors.normBackwardRows(dys, xs, w, dxs, dws, n, d, eps);
  return [dx, dw];
}
