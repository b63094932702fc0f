// Rotary position embedding on the wasm heap. The gradient is the rotation by the opposite angle.
import type { TensorInfo } from '@tensorflow/tfjs';
import type { Heap } from './heap.ts';
import type { Vectors } from './vectors.ts';

/**
 * Rotates each pair (x_j, x_{j + dh/2}) by its angle times `direction` (1 forward, -1 backward):
 * x [b, h, t, dh], cos and sin [b or 1, 1, t, dh/2] → as x.
 */
export function rotary(
  heap: Heap,
  { rotate }: Vectors,
  x: TensorInfo,
  cos: TensorInfo,
  sin: TensorInfo,
  direction: number,
): TensorInfo {
  const [b, h, t, dh] = x.shape as [number, number, number, number];
  const out = heap.allocate(x.shape);
  const half = dh / 2;
  const bytes = 4 * half;
  const [coss, sins] = [heap.addressOf(cos), heap.addressOf(sin)];
  let [left, outLeft] = [heap.addressOf(x), heap.addressOf(out)];
  for (let i = 0; i < b * h; i++) {
    let angle = cos.shape[0] === 1 ? 0 : Math.floor(i / h) * t * bytes;
    for (let time = 0; time < t; time++) {
      rotate(left, left + bytes, coss + angle, sins + angle, outLeft, outLeft + bytes, direction, half);
      left += 2 * bytes;
      outLeft += 2 * bytes;
      angle += bytes;
    }
  }
  return out;
}
