// Cosines and sines of the rotary position embedding (Su et al., arXiv 2104.09864) for the positions at hand.
import { tf } from '../../tensor/index.ts';
import type { LlamaConfig } from './config.ts';

/** What `rotary` multiplies by: both [b or 1, 1, t, dh/2]. */
export interface Rotation {
  readonly cos: tf.Tensor4D;
  readonly sin: tf.Tensor4D;
}

type RotaryConfig = Pick<LlamaConfig, 'head_dim' | 'rope_theta' | 'rope_scaling' | 'max_position_embeddings'>;

/**
 * The longest context whose frequencies are rounded to float32 once, at the end. PyTorch rounds after each operation, so every
 * third is off by a bit, and that bit times thousands of positions is a digit of the logits. In shorter contexts it is lost in
 * the rounding of the angles, and there the numbers stay what they have always been: runs are repeated to the bit.
 */
const roundedOnce = 1024;

/** The frequencies of the pairs of a head's coordinates: [dh/2], θ^(−2i/dh) as they are, or scaled. */
function frequenciesOf(config: RotaryConfig): Float32Array {
  const { head_dim, rope_theta, rope_scaling: scaling } = config;
  const round = config.max_position_embeddings > roundedOnce ? Math.fround : (x: number) => x;
  return Float32Array.from({ length: head_dim / 2 }, (_, i) => {
    const plain = round(1 / round(rope_theta ** round((2 * i) / head_dim)));
    if (scaling === null) return plain;
    const slow = round(plain / scaling.factor);
    if (scaling.rope_type === 'linear') return slow;
    // Llama 3.1: what turned at least `high` times within the first context stays, what turned at most `low` times is slowed
    // down, and between the two it goes over from one to the other.
    const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: first } = scaling;
    const turns = round(first / round(round(2 * Math.PI) / plain));
    if (turns < low) return slow;
    if (turns > high) return plain;
    const kept = round(round(turns - low) / (high - low));
    return round(round(round(round(1 - kept) * plain) / scaling.factor) + round(kept * plain));
  });
}

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
