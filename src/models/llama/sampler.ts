// Draws one token from one row of logits. Pure; runs on the CPU between the decoding steps of generate.ts.
import type { Sampling } from '../../domain/model.ts';
import type { Rng } from '../../domain/rng.ts';

export interface Draw {
  readonly id: number;
  /** Nats, at temperature 1 and before top-k and top-p. Not finite exactly when a logit is NaN or +∞. */
  readonly logprob: number;
}

/**
 * Draws a token id from logits [vocab]. Temperature 0 takes the most likely id (the lowest on a tie) and
 * draws nothing from `rng`; otherwise one number is drawn. Filters apply in the order temperature, top-k,
 * top-p, as in Transformers; among equally likely tokens the lowest ids are kept.
 * Linear in the vocabulary, plus m·log(vocab) for the m tokens that a filter keeps.
 */
export function sampleToken(logits: Float32Array, sampling: Sampling, rng: Rng): Draw {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[best]!) best = id;
  let sum = 0;
  for (let id = 0; id < logits.length; id++) sum += Math.exp(logits[id]! - logits[best]!);
  const logPartition = logits[best]! + Math.log(sum);
  const id = sampling.temperature === 0 ? best : drawToken(logits, logits[best]!, sampling, rng);
  return { id, logprob: logits[id]! - logPartition };
}

/** Reused, because a row needs as many weights for every token that it draws. */
let scratch = new Float64Array(0);

function drawToken(logits: Float32Array, highest: number, sampling: Sampling, rng: Rng): number {
  const { temperature, topP, topK } = sampling;
  if (scratch.length < logits.length) scratch = new Float64Array(logits.length);
  const weights = scratch.subarray(0, logits.length);
  let total = 0;
  for (let id = 0; id < logits.length; id++) {
    weights[id] = Math.exp((logits[id]! - highest) / temperature);
    total += weights[id]!;
  }
  const limit = topK === 0 ? logits.length : Math.min(topK, logits.length);
  if (limit === logits.length && topP >= 1) {
    return walk(weights, total * rng.next(), (i) => i, logits.length);
  }
  // Tokens below this weight together have less than 1 − p, so the nucleus is complete without them.
  const floor = limit === logits.length ? ((1 - topP) * total) / logits.length : 0;
  const heap = createHeap(weights, floor);
  const kept: number[] = [];
  let mass = 0;
  if (limit < logits.length) {
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
  weights: Float64Array,
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
function createHeap(weights: Float64Array, floor: number): { pop(): number | undefined } {
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
