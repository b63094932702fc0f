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

/** The sum over the passes, in their order, so that it does not depend on who computed them when. */
export function sumPasses(passes: readonly PassGradients[]): PassGradients {
  const gradients = new Map<string, Float32Array>();
  let loss = 0;
  for (const pass of passes) {
    loss += pass.loss;
    for (const [name, values] of pass.gradients) {
      const sum = gradients.get(name);
      if (sum === undefined) gradients.set(name, values.slice());
      else for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!;
    }
  }
  return { loss, gradients };
}
