// Seeded randomness. A run has one root generator; everything random in it descends from `split`.

/**
 * A deterministic random generator. `split(label)` depends only on this generator's key and the label,
 * never on how many numbers were drawn, so adding a draw in one place changes nothing in another.
 */
export interface Rng {
  /** A number in [0, 1) with 32 random bits. */
  next(): number;
  /** An integer in [0, n). */
  int(n: number): number;
  /** An unsigned 32-bit integer: a seed to hand to another system. */
  seed32(): number;
  /** One of the items, uniformly. The list must not be empty. */
  pick<T>(items: readonly T[]): T;
  /** A shuffled copy (Fisher–Yates). */
  shuffle<T>(items: readonly T[]): T[];
  /** An independent child generator. */
  split(label: string | number): Rng;
}

type Key = readonly [number, number, number, number];

/** The root generator of a seed. */
export function createRng(seed: number | string): Rng {
  return fromKey(hashKey([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], `seed:${seed}`));
}

/** A 32-bit hash of a text, the same on every machine. */
export function hash32(text: string): number {
  return hashKey([0x9e3779b9, 0x7f4a7c15, 0xf39cc060, 0x5cedc834], text)[0];
}

function fromKey(key: Key): Rng {
  // xoshiro128** 1.1 (Blackman and Vigna, 2018); the state is the key itself.
  let [a, b, c, d] = key;
  const draw = (): number => {
    const scrambled = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotateLeft(d, 11);
    return scrambled;
  };
  const rng: Rng = {
    next: () => draw() / 0x1_0000_0000,
    int: (n) => Math.floor((draw() / 0x1_0000_0000) * n),
    seed32: draw,
    pick: (items) => {
      if (items.length === 0) throw new RangeError('Rng.pick: the list is empty.');
      return items[rng.int(items.length)]!;
    },
    shuffle: (items) => {
      const copy = [...items];
      for (let i = copy.length - 1; i > 0; i--) {
        const j = rng.int(i + 1);
        [copy[i], copy[j]] = [copy[j]!, copy[i]!];
      }
      return copy;
    },
    split: (label) => fromKey(hashKey(key, `/${label}`)),
  };
  return rng;
}

function rotateLeft(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k));
}

/** Four 32-bit lanes, each fed every UTF-16 unit and then finished with the murmur3 avalanche. */
function hashKey(key: Key, text: string): Key {
  const lanes = [...key] as [number, number, number, number];
  const multipliers = [0x85ebca6b, 0xc2b2ae35, 0x27d4eb2f, 0x165667b1] as const;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    for (let lane = 0; lane < 4; lane++) {
      lanes[lane] = Math.imul(
        rotateLeft(lanes[lane]! ^ unit, 13) + lanes[(lane + 1) & 3]!,
        multipliers[lane]!,
      );
    }
  }
  for (let round = 0; round < 2; round++) {
    for (let lane = 0; lane < 4; lane++) {
      let h = lanes[lane]! ^ Math.imul(lanes[(lane + 3) & 3]!, 0x9e3779b1) ^ text.length;
      h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
      h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
      lanes[lane] = (h ^ (h >>> 16)) >>> 0;
    }
  }
  // xoshiro must not start at all zeros.
  if ((lanes[0] | lanes[1] | lanes[2] | lanes[3]) === 0) lanes[0] = 1;
  return lanes;
}
