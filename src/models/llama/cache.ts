// The key/value cache: reads prompts, decodes one token for every row at a time, and rearranges rows as they
// join and leave. generate.ts decides when; this file knows how.
import { decodeAttention, embed, linear, rmsNorm, tf } from '../../tensor/index.ts';
import { computeHidden, computeLayer, type Decoder, type KeysValues, type Past, project } from './forward.ts';
import { padSequences } from './groups.ts';

export interface KeyValueCache {
  /** One entry per layer, [b, kv, slots, dh] each. A decoding step may write into them or replace them. */
  layers: readonly KeysValues[];
  /** The slot of each row's first token. */
  readonly starts: readonly number[];
  /** Tokens of each row, in neighbouring slots. */
  readonly lengths: number[];
}

/** Slots that rows can still fill when they begin to decode together: packing is dear, empty slots cost memory only. */
const room = 64;

/** Steps that every row of a cache has room for. */
export function stepsLeft({ layers, starts, lengths }: KeyValueCache): number {
  const slots = layers[0]!.keys.shape[2];
  return Math.min(...lengths.map((length, row) => slots - starts[row]! - length));
}

/** Frees a cache. */
export function disposeCache({ layers }: KeyValueCache): void {
  disposeLayers(layers);
}

function disposeLayers(layers: readonly KeysValues[]): void {
  for (const { keys, values } of layers) tf.dispose([keys, values]);
}

/**
 * Reads prompts, one row each; those of `past` are read from where it ends, and it is disposed. Returns their cache,
 * which has no room yet, and the logits [rows, vocab] of each prompt's next token; the caller disposes both.
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
    const { layers, logits } = tf.tidy(() => {
      const layers: KeysValues[] = [];
      const onLayer = (layer: KeysValues) => layers.push(layer);
      const hidden = computeHidden(decoder, padSequences(unread), { past, onLayer }); // [rows·time, d]
      const last = unread.map((ids, row) => row * time + ids.length - 1);
      return { layers, logits: project(decoder, hidden, tf.tensor1d(last, 'int32')) };
    });
    const slots = layers[0]!.keys.shape[2];
    const starts = known.map((length) => slots - time - length);
    return { cache: { layers, starts, lengths: prompts.map((prompt) => prompt.length) }, logits };
  } finally {
    disposeLayers(past?.layers ?? []);
  }
}

/**
 * Decodes one step: `ids` holds the newest token of each row; its keys and values join the cache, which must have
 * room for them. Returns the logits [rows, vocab] of the tokens after them; the caller disposes them.
 */
export function decodeStep(decoder: Decoder, cache: KeyValueCache, ids: readonly number[]): tf.Tensor2D {
  const { config, weights } = decoder;
  const { rms_norm_eps: eps } = config;
  if (stepsLeft(cache) < 1) throw new RangeError('decodeStep: the cache has no room for another token.');
  const { logits, layers } = tf.tidy(() => {
    const rotation = decoder.rotary.forSpans(cache.lengths, 1);
    const starts = tf.tensor1d(cache.starts as number[], 'int32');
    const ends = tf.tensor1d(
      cache.lengths.map((length, row) => cache.starts[row]! + length),
      'int32',
    );
    const layers: KeysValues[] = [];
    let x = embed(weights.embedding, tf.tensor1d(ids as number[], 'int32')); // [b, d]
    weights.layers.forEach((layer, index) => {
      x = computeLayer(x, layer, eps, (queries, keys, values) => {
        const step = decodeAttention({
          queries,
          keys,
          values,
          ...rotation,
          starts,
          ends,
          cache: cache.layers[index]!,
        });
        layers.push(step.cache);
        return step.mixed;
      });
    });
    return { logits: linear(rmsNorm(x, weights.norm, eps), weights.head), layers }; // [b, vocab]
  });
  for (const [index, { keys, values }] of cache.layers.entries()) {
    if (keys !== layers[index]!.keys) keys.dispose();
    if (values !== layers[index]!.values) values.dispose();
  }
  cache.layers = layers;
  cache.lengths.forEach((length, row) => {
    cache.lengths[row] = length + 1;
  });
  return logits;
}

/** Rows of a cache that stay, by index. */
export interface CacheRows {
  readonly cache: KeyValueCache;
  readonly rows: readonly number[];
}

/**
 * Puts the chosen rows of several caches into one that has room to decode. Takes the caches over: they are disposed.
 * At least one row must be chosen.
 */
export function mergeCaches(decoder: Decoder, all: readonly CacheRows[]): KeyValueCache {
  const merged = gatherRows(decoder, all, room);
  for (const { cache } of all) disposeCache(cache);
  return merged;
}

/** Copies the chosen rows of several caches into a new one, each from slot 0 on, with `spare` slots behind the longest. */
export function gatherRows({ config }: Decoder, all: readonly CacheRows[], spare: number): KeyValueCache {
  const parts = all.filter(({ rows }) => rows.length > 0);
  const { num_key_value_heads: kv, head_dim: dh, num_hidden_layers: layerCount } = config;
  const lengths = parts.flatMap(({ cache, rows }) => rows.map((row) => cache.lengths[row]!));
  const slots = Math.max(...lengths) + spare;

  // All parts of one layer, laid end to end, are a table of slots [·, dh]; `sources` says which goes where.
  // What lies behind a row's length is never read.
  const sources = new Int32Array(lengths.length * kv * slots);
  let row = 0;
  let base = 0;
  for (const { cache, rows } of parts) {
    const [b, , width] = cache.layers[0]!.keys.shape;
    for (const source of rows) {
      for (let head = 0; head < kv; head++) {
        const from = base + (source * kv + head) * width + cache.starts[source]!;
        const target = (row * kv + head) * slots;
        for (let i = 0; i < lengths[row]!; i++) sources[target + i] = from + i;
      }
      row++;
    }
    base += b * kv * width;
  }

  const layers = tf.tidy(() => {
    const index = tf.tensor1d(sources, 'int32');
    const gather = (part: 'keys' | 'values', layer: number) =>
      tf.tidy(() => {
        const tables = parts.map(
          ({ cache }) => tf.reshape(cache.layers[layer]![part], [-1, dh]) as tf.Tensor2D,
        );
        const table = tables.length === 1 ? tables[0]! : tf.concat(tables);
        return tf.reshape(embed(table, index), [lengths.length, kv, slots, dh]) as tf.Tensor4D;
      });
    return Array.from(
      { length: layerCount },
      (_, layer): KeysValues => ({ keys: gather('keys', layer), values: gather('values', layer) }),
    );
  });
  return { layers, starts: lengths.map(() => 0), lengths };
}
