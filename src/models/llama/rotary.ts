// Cosines and sines of the rotary position embedding (Su et al., arXiv 2104.09864) for the positions at hand.
import { tf } from '../../tensor/index.ts';
import type { LlamaConfig } from './config.ts';

/** What `rotary` multiplies by: both [b or 1, 1, t, dh/2]. */
export interface Rotation {
  readonly cos: tf.Tensor4D;
  readonly sin: tf.Tensor4D;
}

/** The frequencies of the pairs of a head's coordinates: [dh/2], θ^(−2i/dh) as they are, or scaled. */
function frequenciesOf({ head_dim, rope_theta, rope_scaling }: RotaryConfig): Float32Array {
  const plain = (i: number) => rope_theta ** ((-2 * i) / head_dim);
  return Float32Array.from({ length: head_dim / 2 }, (_, i) => {
    if (rope_scaling === null) return plain(i);
    if (rope_scaling.rope_type === 'linear') return plain(i) / rope_scaling.factor;
    // Llama 3.1: what turned at least `high` times within the first context stays, what turned at most `low` times is slowed
    // down, and between the two it goes over from one to the other.
    const { factor, low_freq_factor: low, high_freq_factor: high } = rope_scaling;
    const turns = (rope_scaling.original_max_position_embeddings * plain(i)) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return plain(i) * (kept + (1 - kept) / factor);
  });
}

type RotaryConfig = Pick<LlamaConfig, 'head_dim' | 'rope_theta' | 'rope_scaling'>;

/** Angles position · frequency, tabulated up to the longest position asked for so far. */
export class RotaryTable {
  readonly #frequencies: Float32Array;
  #cos = new Float32Array(0);
  #sin = new Float32Array(0);

  constructor(config: RotaryConfig) {
    this.#frequencies = frequenciesOf(config);
  }

  /** For sequences of `time` tokens, each beginning at its own position: [starts, 1, time, dh/2]. The caller disposes them. */
  forSpans(starts: readonly number[], time: number): Rotation {
    const half = this.#frequencies.length;
    this.#reach(Math.max(...starts) + time);
    const tensor = (table: Float32Array) => {
      const rows = new Float32Array(starts.length * time * half);
      starts.forEach((start, row) => {
        rows.set(table.subarray(start * half, (start + time) * half), row * time * half);
      });
      return tf.tensor4d(rows, [starts.length, 1, time, half]);
    };
    return { cos: tensor(this.#cos), sin: tensor(this.#sin) };
  }

  /** For tokens at any positions: [1, 1, tokens, dh/2]. The caller disposes them. */
  forPositions(positions: Int32Array): Rotation {
    const half = this.#frequencies.length;
    this.#reach(1 + positions.reduce((most, position) => Math.max(most, position), 0));
    const tensor = (table: Float32Array) => {
      const rows = new Float32Array(positions.length * half);
      positions.forEach((position, row) => {
        rows.set(table.subarray(position * half, (position + 1) * half), row * half);
      });
      return tf.tensor4d(rows, [1, 1, positions.length, half]);
    };
    return { cos: tensor(this.#cos), sin: tensor(this.#sin) };
  }

  /** The tables [time, dh/2] themselves, for positions 0 … time − 1 or more. */
  angles(time: number): { readonly cos: Float32Array; readonly sin: Float32Array } {
    this.#reach(time);
    return { cos: this.#cos, sin: this.#sin };
  }

  #reach(time: number): void {
    const half = this.#frequencies.length;
    if (this.#cos.length >= time * half) return;
    // Doubling keeps the cost of growing one position at a time linear.
    const length = Math.max(time, (2 * this.#cos.length) / half) * half;
    // The angle is rounded to float32 because that is what checkpoints were trained with.
    const angle = (i: number) => Math.fround(Math.floor(i / half) * this.#frequencies[i % half]!);
    this.#cos = Float32Array.from({ length }, (_, i) => Math.cos(angle(i)));
    this.#sin = Float32Array.from({ length }, (_, i) => Math.sin(angle(i)));
  }
}
