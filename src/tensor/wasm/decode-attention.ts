// One decoding step of attention on the wasm heap: the newest token of each row against what the row has read. Works in
// the cache itself, so a step copies nothing but its own keys and values.
import type { TensorInfo } from '@tensorflow/tfjs';
import type { Heap } from './heap.ts';
import type { Product } from './product.ts';
import type { Tiles } from './tiles.ts';
import type { Vectors } from './vectors.ts';

export type DecodeInputs = Readonly<
  Record<'q' | 'k' | 'v' | 'cos' | 'sin' | 'starts' | 'ends' | 'keys' | 'values', TensorInfo>
>;

/**
 * Rotates q [b, h·dh] and k [b, kv·dh] by cos and sin [b, 1, 1, dh/2], writes k and v into slot ends[i] of row i of the
 * cache `keys` and `values` [b, kv, slots, dh], and mixes the slots starts[i] … ends[i] → [b, h·dh].
 */
export function decodeAttention(
  heap: Heap,
  vectors: Vectors,
  tiles: Tiles,
  product: Product,
  inputs: DecodeInputs,
): TensorInfo {
  const { rotate, copy, scale, maximum, exponentiate } = vectors;
  const [b, kv, slots, dh] = inputs.keys.shape as [number, number, number, number];
  const h = inputs.q.shape[1]! / dh;
  const group = h / kv;
  const half = dh / 2;
  const out = heap.allocate([b, h * dh]);
  const scratch = heap.allocate([h * dh + group * slots]); // a row's rotated queries, and scores of one key head
  const at = (tensor: TensorInfo) => heap.addressOf(tensor);
  const [queries, scores] = [at(scratch), at(scratch) + 4 * h * dh];
  const [q, k, v, cos, sin] = [at(inputs.q), at(inputs.k), at(inputs.v), at(inputs.cos), at(inputs.sin)];
  const [keys, values, outs] = [at(inputs.keys), at(inputs.values), at(out)];
  const starts = heap.ints(at(inputs.starts), b);
  const ends = heap.ints(at(inputs.ends), b);
  const factor = 1 / Math.sqrt(dh);
  for (let row = 0; row < b; row++) {
    const [start, end] = [starts[row]!, ends[row]!];
    const length = end - start + 1;
    const angle = 4 * row * half;
    const rotateHead = (from: number, to: number) =>
      rotate(from, from + 4 * half, cos + angle, sin + angle, to, to + 4 * half, 1, half);
    for (let head = 0; head < h; head++) rotateHead(q + 4 * (row * h + head) * dh, queries + 4 * head * dh);
    scale(queries, factor, h * dh);
    for (let head = 0; head < kv; head++) {
      const cached = 4 * (row * kv + head) * slots * dh;
      const fresh = 4 * (row * kv + head) * dh;
      rotateHead(k + fresh, keys + cached + 4 * end * dh);
      copy(v + fresh, values + cached + 4 * end * dh, dh);
      const [first, mine] = [cached + 4 * start * dh, 4 * head * group * dh];
      computeScores(tiles, group, length, dh, queries + mine, keys + first, scores);
      for (let i = 0; i < group; i++) {
        const shares = scores + 4 * i * length;
        scale(shares, 1 / exponentiate(shares, maximum(shares, length), length), length);
      }
      product(false, false, group, dh, length, scores, values + first, outs + 4 * row * h * dh + mine);
    }
  }
  heap.free(scratch);
  return out;
}

/** scores [group, length] = q [group, dh] · kᵀ, with the keys [length, dh] walked along once for two queries. */
function computeScores(
  tiles: Tiles,
  group: number,
  length: number,
  dh: number,
  q: number,
  k: number,
  scores: number,
): void {
  const strips = length >> 2;
  for (let i = 0; i < group; i += 2) {
    const [tall, flat] = i + 1 < group ? [tiles.inner4x2, tiles.inner1x2] : [tiles.inner4x1, tiles.inner1x1];
    const [query, to] = [q + 4 * i * dh, scores + 4 * i * length];
    tall(k, 4 * dh, query, 4 * dh, to, 4, 4 * length, dh, strips);
    flat(k + 16 * strips * dh, 4 * dh, query, 4 * dh, to + 16 * strips, 4, 4 * length, dh, length & 3);
  }
}
