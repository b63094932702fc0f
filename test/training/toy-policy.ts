// A policy small enough to reason about: it sees the current token alone and predicts the next.
import * as assert from 'uvu/assert';
import type { PolicyHash } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { embed, linear, rmsNorm, tf } from '../../src/tensor/index.ts';
import type { DifferentiablePolicy } from '../../src/training/policy.ts';

export interface ToyPolicy extends DifferentiablePolicy {
  tokenizer: { readonly padId: number };
  computeLogits: DifferentiablePolicy['computeLogits'];
  /** How often the hash was refreshed. */
  refreshes: number;
  /** The weights that the last refresh saw. */
  hashedWeights: number[];
  weights(): number[];
  dispose(): void;
}

export function createToyPolicy(vocab = 8, width = 8): ToyPolicy {
  const rng = createRng('toy');
  const random = () =>
    tf.tensor2d(
      Array.from({ length: vocab * width }, () => rng.next() - 0.5),
      [vocab, width],
    );
  const variable = (value: tf.Tensor) => {
    const created = tf.variable(value);
    value.dispose();
    return created;
  };
  const embedding = variable(random());
  const norm = variable(tf.ones([width]));
  const head = variable(random());
  const parameters = new Map([
    ['embedding', embedding],
    ['norm', norm],
    ['head', head],
  ]);
  return {
    parameters,
    tokenizer: { padId: 0 },
    refreshes: 0,
    hashedWeights: [],
    computeLogits(inputIds, positions) {
      const current = embed(tf.cast(tf.reshape(inputIds, [-1, 1]), 'float32') as tf.Tensor2D, positions); // [n, 1]
      const hidden = embed(
        embedding as tf.Tensor2D,
        tf.cast(tf.reshape(current, [-1]), 'int32') as tf.Tensor1D,
      ); // [n, d]
      return linear(rmsNorm(hidden, norm as tf.Tensor1D, 1e-6), head as tf.Tensor2D);
    },
    refreshHash() {
      this.refreshes++;
      this.hashedWeights = this.weights();
      return 'toy' as PolicyHash;
    },
    weights: () => [...parameters.values()].flatMap((parameter) => [...parameter.dataSync()]),
    dispose: () => tf.dispose([...parameters.values()]),
  };
}

/** Runs with a toy policy and frees it. */
export async function withPolicy(run: (policy: ToyPolicy) => void | Promise<void>): Promise<void> {
  const policy = createToyPolicy();
  try {
    await run(policy);
  } finally {
    policy.dispose();
  }
}

export function near(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  assert.is(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    assert.ok(Math.abs(actual[i]! - expected[i]!) <= tolerance, `[${i}] ${actual[i]} is not ${expected[i]}`);
  }
}
