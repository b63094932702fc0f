// A policy small enough to reason about: it sees the current token alone and predicts the next.
import type { PolicyHash } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { embed, linear, rmsNorm, tf } from '../../src/tensor/index.ts';
import type { DifferentiablePolicy } from '../../src/training/loop.ts';

export interface ToyPolicy extends DifferentiablePolicy {
  /** How often the hash was refreshed. */
  refreshes: number;
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
    computeLogits(inputIds, positions) {
      const current = embed(tf.reshape(inputIds, [-1, 1]).toFloat() as tf.Tensor2D, positions); // [n, 1]
      const hidden = embed(embedding as tf.Tensor2D, tf.reshape(current, [-1]).toInt() as tf.Tensor1D); // [n, d]
      return linear(rmsNorm(hidden, norm as tf.Tensor1D, 1e-6), head as tf.Tensor2D);
    },
    refreshHash() {
      this.refreshes++;
      return 'toy' as PolicyHash;
    },
    weights: () => [...parameters.values()].flatMap((parameter) => [...parameter.dataSync()]),
    dispose: () => tf.dispose([...parameters.values()]),
  };
}
