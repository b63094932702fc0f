// Cross-entropy per token on the wasm heap, from logits and label ids, without one-hot vectors.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { Heap } from './heap.ts';
import type { Vectors } from './vectors.ts';

/** log Σ exp(logits) − logits[label] in nats: logits [n, v], labels int32 [n] → [n]. */
export function tokenNll(
  heap: Heap,
  { maximum, sumExp }: Vectors,
  logits: TensorInfo,
  labels: TensorInfo,
): TensorInfo {
  const [n, v] = logits.shape as [number, number];
  const out = heap.allocate([n]);
  const x = heap.addressOf(logits);
  const xs = heap.floats(x, n * v);
  const ids = heap.ints(heap.addressOf(labels), n);
  const nll = heap.floats(heap.addressOf(out), n);
  for (let row = 0; row < n; row++) {
    const at = x + 4 * row * v;
    const max = maximum(at, v);
    nll[row] = Math.log(sumExp(at, max, v)) + (max - xs[row * v + ids[row]!]!);
  }
  return out;
}

/** dlogits = dy · (softmax(logits) − [j is the label]); the log-sum-exp comes back from nll + logits[label]. */
export function tokenNllGrad(
  heap: Heap,
  { scaledExp }: Vectors,
  dy: TensorInfo,
  logits: TensorInfo,
  labels: TensorInfo,
  nll: TensorInfo,
): TensorInfo {
  const [n, v] = logits.shape as [number, number];
  const out = heap.allocate([n, v]);
  const [x, dx] = [heap.addressOf(logits), heap.addressOf(out)];
  const [xs, dxs] = [heap.floats(x, n * v), heap.floats(dx, n * v)];
  const dys = heap.floats(heap.addressOf(dy), n);
  const ids = heap.ints(heap.addressOf(labels), n);
  const nlls = heap.floats(heap.addressOf(nll), n);
  for (let row = 0; row < n; row++) {
    const label = row * v + ids[row]!;
    if (dys[row] === 0) {
      dxs.fill(0, row * v, (row + 1) * v); // a token outside the loss mask
    } else {
      scaledExp(x + 4 * row * v, dx + 4 * row * v, nlls[row]! + xs[label]!, dys[row]!, v);
      dxs[label]! -= dys[row]!;
    }
  }
  return out;
}
