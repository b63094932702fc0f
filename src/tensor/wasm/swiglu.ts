// SwiGLU on the wasm heap: silu(gate) · up in one pass, and its gradient in one.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import tf from '../tfjs.cjs';
import type { Heap } from './heap.ts';
import type { Vectors } from './vectors.ts';

const { util } = tf;

/** gate · σ(gate) · up, element by element. */
export function swiglu(heap: Heap, vectors: Vectors, gate: TensorInfo, up: TensorInfo): TensorInfo {
  const out = heap.allocate(gate.shape);
  const size = util.sizeFromShape(gate.shape);
  vectors.swiglu(heap.addressOf(gate), heap.addressOf(up), heap.addressOf(out), size);
  return out;
}

/** With σ = σ(gate): dgate = dy · up · σ · (1 + gate · (1 − σ)), dup = dy · gate · σ. Returns [dgate, dup]. */
export function swigluGrad(
  heap: Heap,
  vectors: Vectors,
  dy: TensorInfo,
  gate: TensorInfo,
  up: TensorInfo,
): TensorInfo[] {
  const [dgate, dup, out] = [gate, gate, gate].map(({ shape }) => heap.allocate(shape)) as [
    ...[TensorInfo, TensorInfo, TensorInfo],
  ];
  const size = util.sizeFromShape(gate.shape);
  const at = (tensor: TensorInfo) => heap.addressOf(tensor);
  vectors.copy(at(dy), at(dgate), size);
  vectors.swigluBackward(at(dgate), at(gate), at(up), at(dup), at(out), size);
  heap.free(out);
  return [dgate, dup];
}
