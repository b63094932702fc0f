// Products with a decoder's matrices, wherever they are: on the heap as tensors, or frozen outside it.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import { type FrozenMatrix, isFrozen } from '../frozen-matrix.ts';
import type { HeapKit } from './heap-kit.ts';

/** A matrix [out, in]. */
export type MatrixInfo = TensorInfo | FrozenMatrix;

/** y [m, out] (+)= x [m, in] · Wᵀ */
export function timesMatrix(
  { heap, product, frozen }: HeapKit,
  m: number,
  w: MatrixInfo,
  x: number,
  y: number,
  adds: boolean,
): void {
  const [out, inner] = w.shape as [number, number];
  if (isFrozen(w)) frozen!.forward(m, w, x, y, adds);
  else product(false, true, m, out, inner, x, inner, heap.addressOf(w), inner, y, out, adds);
}

/** dx [m, in] (+)= dy [m, out] · W */
export function timesTurned(
  { heap, product, frozen }: HeapKit,
  m: number,
  w: MatrixInfo,
  dy: number,
  dx: number,
  adds: boolean,
): void {
  const [out, inner] = w.shape as [number, number];
  if (isFrozen(w)) frozen!.backward(m, w, dy, dx, adds);
  else product(false, false, m, inner, out, dy, out, heap.addressOf(w), inner, dx, inner, adds);
}

/** x [n, in] · Wᵀ */
export function frozenLinear(kit: HeapKit, x: TensorInfo, w: FrozenMatrix): TensorInfo {
  const [n, [out]] = [x.shape[0]!, w.shape];
  const y = kit.heap.allocate([n, out]);
  timesMatrix(kit, n, w, kit.heap.addressOf(x), kit.heap.addressOf(y), false);
  return y;
}

/** dy [n, out] · W */
export function frozenLinearGrad(kit: HeapKit, dy: TensorInfo, w: FrozenMatrix): TensorInfo {
  const [n, [, inner]] = [dy.shape[0]!, w.shape];
  const dx = kit.heap.allocate([n, inner]);
  timesTurned(kit, n, w, kit.heap.addressOf(dy), kit.heap.addressOf(dx), false);
  return dx;
}
