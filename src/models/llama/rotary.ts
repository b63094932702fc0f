// Cosines and sines of the rotary position embedding (Su et al., arXiv 2104.09864) for the positions at hand.
import { tf } from '../../tensor/index.ts';
import type { LlamaConfig } from './config.ts';

/** What `rotary` multiplies by: both [b or 1, 1, t, dh/2]. */
export interface Rotation {
  readonly cos: tf.Tensor4D;
  readonly sin: tf.Tensor4D;
}

/** Angles position · θ^(−2i/dh), tabulated up to the longest position asked for so far. */
export class RotaryTable {
  readonly #frequencies: Float32Array;
  #cos = new Float32Array(0);
  #sin = new Float32Array(0);

  constructor({ head_dim, rope_theta }: Pick<LlamaConfig, 'head_dim' | 'rope_theta'>) {
    this.#frequencies = Float32Array.from(
      { length: head_dim / 2 },
      (_, i) => rope_theta ** ((-2 * i) / head_dim),
    );
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
