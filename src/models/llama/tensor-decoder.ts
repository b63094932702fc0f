// A block decoder of tensors, for what the heap decoder does not take, other backends above all: blocks lie in plain
// arrays and are put together for each pass.
import {
  type BlockDecoder,
  blockTokens,
  computeNumbers,
  type LogitsRow,
  plainLogits,
  type Span,
  tf,
  tokenNll,
} from '../../tensor/index.ts';
import { computeHidden, type Decoder, type KeysValues, type Past, project } from './forward.ts';
import { groupByLength, padSequences } from './length-groups.ts';

/** Keys and values of one block: [layer, keys or values, kv, token, dh]. */
type Block = Float32Array;

/** Most logits at a time, so that a vocabulary of 100,000 and more does not fill the memory. */
const maxLogits = 2 ** 24;

/** Reads with tensors. Every pass uploads what is past and downloads what is new: simple, not fast. */
export class TensorDecoder implements BlockDecoder {
  readonly blockBytes: number;
  readonly #decoder: Decoder;
  readonly #blocks = new Map<number, Block>();
  #next = 0;
  /** Hidden states [n, d] of the last read. */
  #hidden = new Float32Array(0);

  constructor(decoder: Decoder) {
    const { num_hidden_layers: layers, num_key_value_heads: kv, head_dim: dh } = decoder.config;
    this.#decoder = decoder;
    this.blockBytes = 4 * layers * 2 * kv * blockTokens * dh;
  }

  allocate(): number {
    this.#blocks.set(this.#next, new Float32Array(this.blockBytes / 4));
    return this.#next++;
  }

  copy(from: number, to: number): void {
    this.#blocks.get(to)!.set(this.#blocks.get(from)!);
  }

  free(block: number): void {
    this.#blocks.delete(block);
  }

  read(spans: readonly Span[]): void {
    const { hidden_size: d } = this.#decoder.config;
    const starts: number[] = [];
    let n = 0;
    for (const { ids } of spans) {
      starts.push(n);
      n += ids.length;
    }
    this.#hidden = new Float32Array(n * d);
    const indices = spans.map((_, index) => index);
    for (const group of groupByLength(indices, (index) => spans[index]!.ids.length)) {
      const members = group.map((index) => spans[index]!);
      const hidden = this.#readTogether(members);
      const time = Math.max(...members.map(({ ids }) => ids.length));
      group.forEach((index, row) => {
        const own = hidden.subarray(row * time * d, (row * time + spans[index]!.ids.length) * d);
        this.#hidden.set(own, starts[index]! * d);
      });
    }
  }

  logits(rows: readonly number[]): LogitsRow[] {
    const { vocab_size: v } = this.#decoder.config;
    const values = computeNumbers(() => project(this.#decoder, this.#hiddenOf(rows)));
    return rows.map((_, i) => plainLogits(values.subarray(i * v, (i + 1) * v)));
  }

  logprobs(rows: readonly number[], labels: readonly number[]): Float32Array {
    const results = new Float32Array(rows.length);
    const chunk = Math.max(1, Math.floor(maxLogits / this.#decoder.config.vocab_size));
    for (let start = 0; start < rows.length; start += chunk) {
      const part = (all: readonly number[]) => all.slice(start, start + chunk);
      tf.tidy(() => {
        const logits = project(this.#decoder, this.#hiddenOf(part(rows)));
        const nll = tokenNll(logits, tf.tensor1d(part(labels), 'int32'));
        results.set(tf.neg(nll).dataSync<'float32'>(), start);
      });
    }
    return results;
  }

  dispose(): void {
    this.#blocks.clear();
  }

  #hiddenOf(rows: readonly number[]): tf.Tensor2D {
    const { hidden_size: d } = this.#decoder.config;
    const chosen = new Float32Array(rows.length * d);
    rows.forEach((row, i) => {
      chosen.set(this.#hidden.subarray(row * d, (row + 1) * d), i * d);
    });
    return tf.tensor2d(chosen, [rows.length, d]);
  }

  /** One padded pass; the hidden states [spans · time, d]. */
  #readTogether(spans: readonly Span[]): Float32Array {
    return computeNumbers(() => {
      const layers: KeysValues[] = [];
      const hidden = computeHidden(this.#decoder, padSequences(spans.map(({ ids }) => ids)), {
        past: this.#past(spans),
        onLayer: (layer) => layers.push(layer),
      });
      this.#store(spans, layers);
      return hidden;
    });
  }

  /** What the spans' sequences have read before, as tensors; a row fills the last slots. */
  #past(spans: readonly Span[]): Past | undefined {
    const time = Math.max(...spans.map(({ start }) => start));
    if (time === 0) return undefined;
    const { num_hidden_layers: layers, num_key_value_heads: kv, head_dim: dh } = this.#decoder.config;
    const part = (layer: number, which: 0 | 1) => {
      const values = new Float32Array(spans.length * kv * time * dh);
      spans.forEach(({ start, blocks }, row) => {
        for (let head = 0; head < kv; head++) {
          for (let token = 0; token < start; token += blockTokens) {
            const count = Math.min(blockTokens, start - token);
            const source = this.#slice(blocks[token / blockTokens]!, layer, which, head);
            values.set(source.subarray(0, count * dh), ((row * kv + head + 1) * time - start + token) * dh);
          }
        }
      });
      return tf.tensor4d(values, [spans.length, kv, time, dh]);
    };
    return {
      lengths: spans.map(({ start }) => start),
      layers: Array.from({ length: layers }, (_, layer) => ({
        keys: part(layer, 0),
        values: part(layer, 1),
      })),
    };
  }

  /** Copies the spans' keys and values to their blocks; `layers` holds [b, kv, p + t, dh] each. */
  #store(spans: readonly Span[], layers: readonly KeysValues[]): void {
    const { num_key_value_heads: kv, head_dim: dh } = this.#decoder.config;
    const past = Math.max(...spans.map(({ start }) => start));
    layers.forEach(({ keys, values }, layer) => {
      const time = keys.shape[2] - past;
      for (const [which, tensor] of [keys, values].entries()) {
        const fresh = tf.slice(tensor, [0, 0, past, 0], [-1, -1, time, -1]);
        const source = fresh.dataSync<'float32'>();
        spans.forEach(({ ids, start, blocks }, row) => {
          for (let head = 0; head < kv; head++) {
            for (let i = 0; i < ids.length; i++) {
              const from = ((row * kv + head) * time + i) * dh;
              const block = blocks[Math.floor((start + i) / blockTokens)]!;
              const slot = (start + i) % blockTokens;
              this.#slice(block, layer, which as 0 | 1, head).set(
                source.subarray(from, from + dh),
                slot * dh,
              );
            }
          }
        });
      }
    });
  }

  #slice(block: number, layer: number, which: 0 | 1, head: number): Float32Array {
    const { num_key_value_heads: kv, head_dim: dh } = this.#decoder.config;
    const at = ((layer * 2 + which) * kv + head) * blockTokens * dh;
    return this.#blocks.get(block)!.subarray(at, at + blockTokens * dh);
  }
}
