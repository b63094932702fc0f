// What is done a row at a time on the wasm heap: table look-ups, `GatherV2` along the first axis, with their gradient
// `UnsortedSegmentSum`, which TF.js' wasm backend lacks, and biases.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import tf from '../tfjs.cjs';
import { bytes, type Heap } from './heap.ts';
import type { Vectors } from './vectors.ts';

const { util } = tf;

/** out[i] = x[indices[i]]: x [rows, …] of a 4-byte type, indices int32 [any shape] → [indices' shape, …]. */
export function gatherRows(heap: Heap, { copy }: Vectors, x: TensorInfo, indices: TensorInfo): TensorInfo {
  const [rows, ...inner] = x.shape as [number, ...number[]];
  const out = heap.allocate([...indices.shape, ...inner], x.dtype);
  const width = util.sizeFromShape(inner);
  const [from, to] = [heap.addressOf(x), heap.addressOf(out)];
  for (const [i, id] of heap.ints(heap.addressOf(indices), util.sizeFromShape(indices.shape)).entries()) {
    util.assert(id >= 0 && id < rows, () => `gather: index ${id} is not in [0, ${rows}).`);
    copy(from + 4 * id * width, to + 4 * i * width, width);
  }
  return out;
}

/** out[id] = Σ of the rows of x whose segment is `id`; negative ones are left out: x [n, …], segmentIds int32 [n] → [segments, …]. */
export function unsortedSegmentSum(
  heap: Heap,
  { accumulate }: Vectors,
  x: TensorInfo,
  segmentIds: TensorInfo,
  segments: number,
): TensorInfo {
  const inner = x.shape.slice(1);
  const out = heap.allocate([segments, ...inner]);
  const width = util.sizeFromShape(inner);
  const [rows, sums] = [heap.addressOf(x), heap.addressOf(out)];
  heap.floats(sums, segments * width).fill(0);
  for (const [row, id] of heap.ints(heap.addressOf(segmentIds), x.shape[0]!).entries()) {
    if (id < 0) continue; // left out, as TensorFlow does
    util.assert(id < segments, () => `unsortedSegmentSum: segment ${id} is not below ${segments}.`);
    accumulate(rows + 4 * row * width, sums + 4 * id * width, width);
  }
  return out;
}

/** Each of the `n` rows of `width` numbers at `to` += the row at `bias`. */
export function addToRows(vectors: Vectors, bias: number, to: number, n: number, width: number): void {
  for (let row = 0; row < n; row++) vectors.accumulate(bias, to + bytes(row * width), width);
}

/** The sum of the `n` rows of `width` numbers at `from`, to `sum`. */
export function sumRows(vectors: Vectors, from: number, sum: number, n: number, width: number): void {
  vectors.fill(sum, 0, width);
  for (let row = 0; row < n; row++) vectors.accumulate(from + bytes(row * width), sum, width);
}
