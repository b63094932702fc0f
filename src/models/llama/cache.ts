// The key/value cache: reads prompts, decodes one token for every row at a time, and rearranges rows as they
// join and leave. generate.ts decides when; this file knows how.
//
// A layer's cache has two parts. `packed` [b, kv, s, dh] is written once; row i fills lengths[i] slots from starts[i]
// on and a bias hides the rest. `recent` [b, kv, r, dh] gets one slot a step, which is real in every row and needs
// no mask. A step therefore copies only the short recent part; `mergeCaches` moves it into a new packed part.
import { embed, linear, rmsNorm, rotary, tf } from '../../tensor/index.ts';
import {
  computeHidden,
  computeLayer,
  type Decoder,
  type KeysValues,
  masked,
  type Past,
  project,
} from './forward.ts';
import { padSequences } from './groups.ts';

export interface KeyValueCache {
  /** Filled slots of each row's packed part, and the first of them. */
  readonly lengths: readonly number[];
  readonly starts: readonly number[];
  /** One entry per layer. */
  readonly packed: readonly KeysValues[];
  /** [b, 1, 1, s]: hides the slots behind a row's length. */
  readonly bias: tf.Tensor4D;
  /** One entry per layer; null before the first step. */
  recent: readonly KeysValues[] | null;
  /** r: steps since the packed part was made. */
  recentLength: number;
}

/** Frees a cache. */
export function disposeCache({ packed, bias, recent }: KeyValueCache): void {
  bias.dispose();
  disposeLayers(packed);
  disposeLayers(recent);
}

function disposeLayers(layers: readonly KeysValues[] | null): void {
  for (const { keys, values } of layers ?? []) tf.dispose([keys, values]);
}

/**
 * Reads prompts, one row each; those of `past` are read from where it ends, and it is disposed. Returns their cache
 * and the logits [rows, vocab] of each prompt's next token; the caller disposes both.
 */
export function createCache(
  decoder: Decoder,
  prompts: readonly (readonly number[])[],
  past?: Past,
): { cache: KeyValueCache; logits: tf.Tensor2D } {
  const known = past?.lengths ?? prompts.map(() => 0);
  const unread = prompts.map((prompt, row) => prompt.slice(known[row]));
  const time = Math.max(...unread.map((ids) => ids.length));
  try {
    const { packed, logits } = tf.tidy(() => {
      const layers: KeysValues[] = [];
      const onLayer = (layer: KeysValues) => layers.push(layer);
      const hidden = computeHidden(decoder, padSequences(unread), { past, onLayer }); // [rows·time, d]
      const last = unread.map((ids, row) => row * time + ids.length - 1);
      return { packed: layers, logits: project(decoder, hidden, tf.tensor1d(last, 'int32')) };
    });
    const slots = packed[0]!.keys.shape[2];
    const starts = known.map((length) => slots - time - length);
    const lengths = prompts.map((prompt) => prompt.length);
    return { cache: createKeyValueCache(packed, starts, lengths), logits };
  } finally {
    disposeLayers(past?.layers ?? null);
  }
}

function createKeyValueCache(
  packed: readonly KeysValues[],
  starts: readonly number[],
  lengths: readonly number[],
): KeyValueCache {
  const slots = packed[0]!.keys.shape[2];
  return {
    lengths,
    starts,
    packed,
    bias: createBias(starts, lengths, slots),
    recent: null,
    recentLength: 0,
  };
}

/**
 * Decodes one step: `ids` holds the newest token of each row; its keys and values join the cache. Returns the
 * logits [rows, vocab] of the tokens after them; the caller disposes them.
 */
export function decodeStep(decoder: Decoder, cache: KeyValueCache, ids: readonly number[]): tf.Tensor2D {
  const { config, weights } = decoder;
  const { head_dim: dh, num_key_value_heads: kv, num_attention_heads: h, rms_norm_eps: eps } = config;
  const b = ids.length;
  const result = tf.tidy(() => {
    const { cos, sin } = decoder.rotary.forSpans(
      cache.lengths.map((n) => n + cache.recentLength),
      1,
    );
    const recent: KeysValues[] = [];
    let x = embed(weights.embedding, tf.tensor1d(ids as number[], 'int32')); // [b, d]
    weights.layers.forEach((layer, index) => {
      const packed = cache.packed[index]!;
      const before = cache.recent?.[index];
      x = computeLayer(x, layer, eps, (queries, keys, values) => {
        const newQueries = rotary(tf.reshape(queries, [b, h, 1, dh]), cos, sin);
        const newKeys = rotary(tf.reshape(keys, [b, kv, 1, dh]), cos, sin);
        const newValues = tf.reshape(values, [b, kv, 1, dh]) as tf.Tensor4D;
        const now: KeysValues =
          before === undefined
            ? { keys: newKeys, values: newValues }
            : {
                keys: tf.concat([before.keys, newKeys], 2), // [b, kv, r + 1, dh]
                values: tf.concat([before.values, newValues], 2),
              };
        recent.push(now);
        return tf.reshape(attendParts(newQueries, packed, cache.bias, now), [b, h * dh]);
      });
    });
    const logits = linear(rmsNorm(x, weights.norm, eps), weights.head); // [b, vocab]
    return { logits, recent };
  });
  disposeLayers(cache.recent);
  cache.recent = result.recent;
  cache.recentLength++;
  return result.logits;
}

/** `attention` over both parts of a cache, for one token in each row: queries [b, h, 1, dh] → [b, kv, h/kv, dh]. */
function attendParts(
  queries: tf.Tensor4D,
  packed: KeysValues,
  bias: tf.Tensor4D,
  recent: KeysValues,
): tf.Tensor {
  const [b, h, , dh] = queries.shape;
  const [, kv, s] = packed.keys.shape;
  const r = recent.keys.shape[2];
  const q = tf.reshape(tf.mul(queries, 1 / Math.sqrt(dh)), [b, kv, h / kv, dh]);
  const packedScores = tf.add(tf.matMul(q, packed.keys, false, true), bias); // [b, kv, h/kv, s]
  const recentScores = tf.matMul(q, recent.keys, false, true); // [b, kv, h/kv, r]
  const shares = tf.softmax(tf.concat([packedScores, recentScores], 3)); // [b, kv, h/kv, s + r]
  const [packedShares, recentShares] = tf.split(shares, [s, r], 3) as [tf.Tensor, tf.Tensor];
  return tf.add(tf.matMul(packedShares, packed.values), tf.matMul(recentShares, recent.values));
}

/** Rows of a cache that stay, by index. */
export interface CacheRows {
  readonly cache: KeyValueCache;
  readonly rows: readonly number[];
}

/**
 * Puts the chosen rows of several caches into one, each row's slots packed to the left. Takes the caches over:
 * they are disposed. At least one row must be chosen.
 */
export function mergeCaches(decoder: Decoder, all: readonly CacheRows[]): KeyValueCache {
  const [only, ...others] = all.filter(({ rows }) => rows.length > 0) as [CacheRows, ...CacheRows[]];
  const isWhole = only.cache.recent === null && only.rows.length === only.cache.lengths.length;
  const merged = others.length === 0 && isWhole ? only.cache : gatherRows(decoder, all);
  for (const { cache } of all) if (cache !== merged) disposeCache(cache);
  return merged;
}

/** Copies the chosen rows of several caches into a new one, as `mergeCaches` does. */
export function gatherRows({ config }: Decoder, all: readonly CacheRows[]): KeyValueCache {
  const parts = all.filter(({ rows }) => rows.length > 0);
  const kv = config.num_key_value_heads;
  const dh = config.head_dim;
  const lengths = parts.flatMap(({ cache, rows }) =>
    rows.map((row) => cache.lengths[row]! + cache.recentLength),
  );
  const time = Math.max(...lengths);
  const b = lengths.length;

  // All parts of one layer, laid end to end, are a table of slots [·, dh]; `slots` says which goes where.
  // Slots behind a row's length point at slot 0 and stay hidden.
  const slots = new Int32Array(b * kv * time);
  let row = 0;
  let base = 0;
  for (const { cache, rows } of parts) {
    const s = cache.packed[0]!.keys.shape[2];
    const r = cache.recentLength;
    const recentBase = base + cache.lengths.length * kv * s;
    for (const source of rows) {
      const filled = cache.lengths[source]!;
      for (let head = 0; head < kv; head++) {
        const target = (row * kv + head) * time;
        const from = base + (source * kv + head) * s + cache.starts[source]!;
        const recentFrom = recentBase + (source * kv + head) * r;
        for (let i = 0; i < filled; i++) slots[target + i] = from + i;
        for (let i = 0; i < r; i++) slots[target + filled + i] = recentFrom + i;
      }
      row++;
    }
    base = recentBase + cache.lengths.length * kv * r;
  }

  const packed = tf.tidy(() => {
    const index = tf.tensor1d(slots, 'int32');
    const gatherSlots = (part: 'keys' | 'values', layer: number) =>
      tf.tidy(() => {
        const sources = parts.flatMap(({ cache }) => [
          cache.packed[layer]![part],
          ...(cache.recent ? [cache.recent[layer]![part]] : []),
        ]);
        const table = tf.concat(sources.map((source) => tf.reshape(source, [-1, dh]) as tf.Tensor2D));
        return tf.reshape(embed(table, index), [b, kv, time, dh]) as tf.Tensor4D;
      });
    return Array.from(
      { length: config.num_hidden_layers },
      (_, layer): KeysValues => ({ keys: gatherSlots('keys', layer), values: gatherSlots('values', layer) }),
    );
  });
  return createKeyValueCache(
    packed,
    lengths.map(() => 0),
    lengths,
  );
}

/** [rows, 1, 1, slots]: 0 where a row's slots are filled, else `masked`. */
function createBias(starts: readonly number[], lengths: readonly number[], slots: number): tf.Tensor4D {
  const bias = new Float32Array(lengths.length * slots).fill(masked);
  lengths.forEach((length, row) => {
    const first = row * slots + starts[row]!;
    bias.fill(0, first, first + length);
  });
  return tf.tensor4d(bias, [lengths.length, 1, 1, slots]);
}
