// Draws one token from one row of logits. Pure; runs between the decoding steps of generate.ts.
import type { Sampling } from '../../domain/model.ts';
import type { Rng } from '../../domain/rng.ts';
import type { LogitsRow } from '../../tensor/index.ts';

export interface Draw {
  readonly id: number;
  /**
   * Nats, at temperature 1, before top-k and top-p and with the tokens that are never drawn among what might have come: what
   * scoring and training compute for it. Not finite exactly when a logit is NaN or +∞.
   */
  readonly logprob: number;
}

/**
 * Draws a token id from a row of logits. Temperature 0 takes the most likely id (the lowest on a tie) and
 * draws nothing from `rng`; otherwise one number is drawn. Filters apply in the order temperature, top-k,
 * top-p, as in Transformers; among equally likely tokens the lowest ids are kept. `never` is drawn at no temperature and takes
 * no place in a filter; its logits are overwritten.
 * Linear in the vocabulary, plus m·log(vocab) for the m tokens that a filter keeps.
 */
export function sampleToken(
  logits: LogitsRow,
  sampling: Sampling,
  rng: Rng,
  never: readonly number[] = [],
): Draw {
  const { values } = logits;
  let highest = logits.maximum();
  const logPartition = highest + Math.log(logits.sumExp(highest));
  const isAbove = never.some((id) => values[id] === highest);
  for (const id of never) values[id] = Number.NEGATIVE_INFINITY;
  if (isAbove) highest = logits.maximum();
  const id = sampling.temperature === 0 ? values.indexOf(highest) : drawToken(logits, highest, sampling, rng);
  return { id, logprob: values[id]! - logPartition };
}

function drawToken(logits: LogitsRow, highest: number, sampling: Sampling, rng: Rng): number {
  const { temperature, topP, topK } = sampling;
  const { weights, sum } = logits.exponentials(highest, 1 / temperature);
  let total = sum;
  const limit = topK === 0 ? weights.length : Math.min(topK, weights.length);
  if (limit === weights.length && topP >= 1) {
    return walk(weights, total * rng.next(), (i) => i, weights.length);
  }
  // Tokens below this weight together have less than 1 − p, so the nucleus is complete without them.
  const floor = limit === weights.length ? ((1 - topP) * total) / weights.length : 0;
  const heap = createHeap(weights, floor);
  const kept: number[] = [];
  let mass = 0;
  if (limit < weights.length) {
    while (kept.length < limit) kept.push(heap.pop()!);
    total = kept.reduce((partial, id) => partial + weights[id]!, 0);
  }
  let size = 0;
  while (size < limit && (size === 0 || mass < topP * total)) {
    if (size === kept.length) {
      const next = heap.pop();
      // Only rounding can ask for more than there is.
      if (next === undefined) break;
      kept.push(next);
    }
    mass += weights[kept[size]!]!;
    size++;
  }
  return walk(weights, mass * rng.next(), (i) => kept[i]!, size);
}

/** The first of `count` candidates at which the running sum of weights exceeds `target`. */
function walk(
  weights: Float32Array,
  target: number,
  candidate: (i: number) => number,
  count: number,
): number {
  let last = candidate(0);
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const id = candidate(i);
    if (weights[id] === 0) continue;
    last = id;
    sum += weights[id]!;
    if (sum > target) break;
  }
  // Rounding can leave the target a hair above the sum: then the last possible candidate is meant.
  return last;
}

/**
 * A binary heap of the ids that weigh at least `floor`, heaviest first, lower ids first among equals: built in
 * O(n), popped in O(log n).
 */
function createHeap(weights: Float32Array, floor: number): { pop(): number | undefined } {
  const ids = new Int32Array(weights.length);
  let size = 0;
  for (let id = 0; id < weights.length; id++) if (weights[id]! >= floor) ids[size++] = id;
  const before = (a: number, b: number): boolean =>
    weights[a]! > weights[b]! || (weights[a] === weights[b] && a < b);
  const sink = (start: number): void => {
    const id = ids[start]!;
    let hole = start;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= size) break;
      if (child + 1 < size && before(ids[child + 1]!, ids[child]!)) child++;
      if (!before(ids[child]!, id)) break;
      ids[hole] = ids[child]!;
      hole = child;
    }
    ids[hole] = id;
  };
  for (let i = (size >> 1) - 1; i >= 0; i--) sink(i);
  return {
    pop: () => {
      if (size === 0) return undefined;
      const top = ids[0]!;
      size--;
      ids[0] = ids[size]!;
      sink(0);
      return top;
    },
  };
}
