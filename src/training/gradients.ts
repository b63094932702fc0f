// Gradients of a loss that is the sum of several passes' losses; each pass's tensors are freed before the next.
import { tf } from '../tensor/index.ts';
import type { Gradients } from './adamw.ts';

/** A pass's share of a batch's loss, and its gradient by the names of the parameters. */
export interface PassGradients {
  readonly loss: number;
  readonly gradients: Gradients;
}

/** Computes a pass and its gradient, synchronously; a parameter it does not use has none. Leaves no tensor behind. */
export function computeGradients(
  parameters: ReadonlyMap<string, tf.Variable>,
  computeLoss: () => tf.Scalar,
): PassGradients {
  const gradients = new Map<string, Float32Array>();
  const loss = tf.tidy(() => {
    const { value, grads } = tf.variableGrads(computeLoss, [...parameters.values()]);
    for (const [name, { name: own }] of parameters) {
      const gradient = grads[own];
      if (gradient !== undefined) gradients.set(name, gradient.dataSync<'float32'>());
    }
    return value.dataSync()[0]!;
  });
  return { loss, gradients };
}

/**
 * Adds passes up in their order, whichever is done first, so that the sum does not depend on who computed them when.
 * Each is added as soon as those before it have been, while others are still computed. Takes the arrays over.
 */
export class PassSum {
  readonly #gradients = new Map<string, Float32Array>();
  readonly #early = new Map<number, PassGradients>();
  #loss = 0;
  #next = 0;

  /** Takes the result of pass `index`. */
  add(index: number, pass: PassGradients): void {
    this.#early.set(index, pass);
    for (let ready = this.#early.get(this.#next); ready; ready = this.#early.get(this.#next)) {
      this.#early.delete(this.#next++);
      this.#loss += ready.loss;
      for (const [name, values] of ready.gradients) {
        const sum = this.#gradients.get(name);
        if (sum === undefined) this.#gradients.set(name, values);
        else for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!;
      }
    }
  }

  /** The sum of all that was added. */
  get total(): PassGradients {
    return { loss: this.#loss, gradients: this.#gradients };
  }
}
