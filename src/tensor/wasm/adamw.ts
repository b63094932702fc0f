// One step of AdamW on the wasm heap, in one pass over parameter, gradient and moments.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { AdamWStep } from '../ops.ts';
import tf from '../tfjs.cjs';
import type { Heap } from './heap.ts';
import type { Vectors } from './vectors.ts';

const { util } = tf;

/** The parameter after the step; `mean` and `square` are written in place. */
export function adamW(
  heap: Heap,
  vectors: Vectors,
  x: TensorInfo,
  gradient: TensorInfo,
  mean: TensorInfo,
  square: TensorInfo,
  { beta1, gradientShare, beta2, squareShare, keepShare, rate, correction, epsilon }: AdamWStep,
): TensorInfo {
  const out = heap.allocate(x.shape);
  const [at, g, m, v] = [x, gradient, mean, square].map((tensor) => heap.addressOf(tensor));
  const scalars = [beta1, gradientShare, beta2, squareShare, keepShare, rate, correction, epsilon];
  vectors.adamW(at!, g!, m!, v!, heap.addressOf(out), ...scalars, util.sizeFromShape(x.shape));
  return out;
}
