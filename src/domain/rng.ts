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
  return new Xoshiro(hashKey([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], `seed:${seed}`));
}

/** A 32-bit hash of a text, the same on every machine. */
export function hash32(text: string): number {
  return hashKey([0x9e3779b9, 0x7f4a7c15, 0xf39cc060, 0x5cedc834], text)[0];
}

/** xoshiro128** 1.1 (Blackman and Vigna, 2018); the state begins as the key itself. */
class Xoshiro implements Rng {
  readonly #key: Key;
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(key: Key) {
    this.#key = key;
    [this.#a, this.#b, this.#c, this.#d] = key;
  }

  seed32(): number {
    const scrambled = Math.imul(rotateLeft(Math.imul(this.#b, 5), 7), 9) >>> 0;
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = rotateLeft(this.#d, 11);
    return scrambled;
  }

  next(): number {
    return this.seed32() / 0x1_0000_0000;
  }

  int(n: number): number {
    return Math.floor(this.next() * n);
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('Rng.pick: the list is empty.');
    return items[this.int(items.length)]!;
  }

  shuffle<T>(items: readonly T[]): T[] {
    const copy = [...items];
    for (let i = copy.length - 1; i > 0; i--) {
      const j = this.int(i + 1);
      [copy[i], copy[j]] = [copy[j]!, copy[i]!];
    }
    return copy;
  }

  split(label: string | number): Rng {
    return new Xoshiro(hashKey(this.#key, `/${label}`));
  }
}

function rotateLeft(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k));
}

/** Four 32-bit lanes, each fed every UTF-16 unit and then finished with the murmur3 avalanche. */
function hashKey(key: Key, text: string): Key {
  let [a, b, c, d] = key;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = Math.imul(rotateLeft(a ^ unit, 13) + b, 0x85ebca6b);
    b = Math.imul(rotateLeft(b ^ unit, 13) + c, 0xc2b2ae35);
    c = Math.imul(rotateLeft(c ^ unit, 13) + d, 0x27d4eb2f);
    d = Math.imul(rotateLeft(d ^ unit, 13) + a, 0x165667b1);
  }
  for (let round = 0; round < 2; round++) {
    a = avalanche(a, d, text.length);
    b = avalanche(b, a, text.length);
    c = avalanche(c, b, text.length);
    d = avalanche(d, c, text.length);
  }
  // xoshiro must not start at all zeros.
  return (a | b | c | d) === 0 ? [1, 0, 0, 0] : [a, b, c, d];
}

function avalanche(lane: number, neighbour: number, length: number): number {
  let h = lane ^ Math.imul(neighbour, 0x9e3779b1) ^ length;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
