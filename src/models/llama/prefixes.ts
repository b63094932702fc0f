// The memory of a session: keys and values of prefixes that were read or written before, as plain numbers. Rows copy
// what they share into their cache instead of computing it again. generate.ts and score.ts ask, cache.ts computes.
import { tf } from '../../tensor/index.ts';
import type { LlamaConfig } from './config.ts';
import type { KeysValues, Past } from './forward.ts';
import { PrefixTree } from './prefix-tree.ts';

/** Keys and values of `blockTokens` neighbouring tokens: [layer, keys or values, kv, token, dh]. */
export type Block = Float32Array;

/** Tokens of one block: what two sequences share beyond the last whole block is computed for each. */
export const blockTokens = 16;

/** Tokens that a session's calls had to read, by how. */
export interface PrefixStatistics {
  /** Tokens that went through the decoder. */
  readonly computed: number;
  /** Tokens whose keys and values were known. */
  readonly reused: number;
}

/** A sequence that is read from the end of what is known of it. */
export interface Reading {
  readonly ids: readonly number[];
  /** Its first blocks. */
  readonly known: readonly Block[];
}

/** How many tokens of a sequence are to be read. */
export const unreadTokens = ({ ids, known }: Reading): number => ids.length - known.length * blockTokens;

/** A sequence whose keys and values lie in row `row` of dense tensors, from slot `start` on. */
export interface StoredRow {
  readonly ids: readonly number[];
  readonly row: number;
  /** The slot of its first token. */
  readonly start: number;
}

/** Known prefixes under one set of weights. Changing the weights makes it worthless. */
export class PrefixMemory {
  readonly #config: LlamaConfig;
  #tree: PrefixTree<Block>;
  readonly #blockFloats: number;
  #computed = 0;
  #reused = 0;

  /** Holds at most `maxBytes` of keys and values; with 0 it shares nothing. */
  constructor(config: LlamaConfig, maxBytes = 2 ** 28) {
    const { num_hidden_layers: layers, num_key_value_heads: kv, head_dim: dh } = config;
    this.#config = config;
    this.#blockFloats = layers * 2 * kv * blockTokens * dh;
    this.#tree = new PrefixTree(blockTokens, Math.floor(maxBytes / (4 * this.#blockFloats)));
  }

  forget(): void {
    this.#tree = new PrefixTree(blockTokens, this.#tree.maxBlocks);
  }

  get statistics(): PrefixStatistics {
    return { computed: this.#computed, reused: this.#reused };
  }

  /**
   * Splits sequences into those to read now and those to read later, because one before them reads a prefix that
   * they share. `limitOf` bounds what may be taken from memory, in tokens.
   */
  plan<T>(
    items: readonly T[],
    idsOf: (item: T) => readonly number[],
    limitOf: (item: T) => number,
  ): { now: { item: T; reading: Reading }[]; later: T[] } {
    const claimed = new Set<string>();
    const now: { item: T; reading: Reading }[] = [];
    const later: T[] = [];
    for (const item of items) {
      const ids = idsOf(item);
      const known = this.#tree.find(ids, limitOf(item));
      const next = (known.length + 1) * blockTokens;
      const claim = this.#tree.maxBlocks > 0 && next <= limitOf(item) ? ids.slice(0, next).join(' ') : null;
      if (claim !== null && claimed.has(claim)) {
        later.push(item);
        continue;
      }
      if (claim !== null) claimed.add(claim);
      now.push({ item, reading: { ids, known } });
    }
    return { now, later };
  }

  /** The known part of sequences as the tensors a pass goes on from, which the caller disposes; counts both parts. */
  past(readings: readonly Reading[]): Past | undefined {
    const lengths = readings.map(({ known }) => known.length * blockTokens);
    for (const reading of readings) {
      this.#reused += reading.known.length * blockTokens;
      this.#computed += unreadTokens(reading);
    }
    const time = Math.max(...lengths);
    if (time === 0) return undefined;
    const { num_hidden_layers: layers, num_key_value_heads: kv, head_dim: dh } = this.#config;
    const shape: [number, number, number, number] = [readings.length, kv, time, dh];
    const part = (layer: number, which: 0 | 1) => {
      const values = new Float32Array(readings.length * kv * time * dh);
      readings.forEach(({ known }, row) => {
        for (let head = 0; head < kv; head++) {
          const first = (row * kv + head + 1) * time - known.length * blockTokens;
          known.forEach((block, index) => {
            values.set(this.#slice(block, layer, which, head), (first + index * blockTokens) * dh);
          });
        }
      });
      return tf.tensor4d(values, shape);
    };
    return {
      lengths,
      layers: Array.from({ length: layers }, (_, layer) => ({
        keys: part(layer, 0),
        values: part(layer, 1),
      })),
    };
  }

  /** Counts tokens that a decoding step computed. */
  count(tokens: number): void {
    this.#computed += tokens;
  }

  /** Whether a sequence has whole blocks that are not known. */
  lacks(ids: readonly number[]): boolean {
    const whole = Math.min(this.#tree.maxBlocks, Math.floor(ids.length / blockTokens));
    return this.#tree.find(ids).length < whole;
  }

  /** Keeps the whole blocks of rows that are not known yet; `layers` holds [b, kv, s, dh] for each layer. */
  store(layers: readonly KeysValues[], rows: readonly StoredRow[]): void {
    if (this.#tree.maxBlocks === 0) return;
    const made = rows.flatMap(({ ids, row, start }) =>
      this.#tree
        .grow(ids, () => new Float32Array(this.#blockFloats))
        .map(({ index, block }) => ({ block, row, slot: start + index * blockTokens })),
    );
    if (made.length === 0) return;
    const { num_key_value_heads: kv, head_dim: dh } = this.#config;
    layers.forEach(({ keys, values }, layer) => {
      const time = keys.shape[2];
      for (const [which, tensor] of [keys, values].entries()) {
        const source = tensor.dataSync<'float32'>();
        for (const { block, row, slot } of made) {
          for (let head = 0; head < kv; head++) {
            const from = ((row * kv + head) * time + slot) * dh;
            this.#slice(block, layer, which as 0 | 1, head).set(
              source.subarray(from, from + blockTokens * dh),
            );
          }
        }
      }
    });
  }

  #slice(block: Block, layer: number, which: 0 | 1, head: number): Float32Array {
    const { num_key_value_heads: kv, head_dim: dh } = this.#config;
    const at = ((layer * 2 + which) * kv + head) * blockTokens * dh;
    return block.subarray(at, at + blockTokens * dh);
  }
}
