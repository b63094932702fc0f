// Gradients of a loss that is the sum of several passes' losses; each pass's tensors are freed before the next.
import { tf } from '../tensor/index.ts';
import type { Gradients } from './adamw.ts';

/**
 * The sum of the losses and its gradient with respect to `parameters`. Each pass computes its share of the
 * loss from scratch, synchronously; a parameter that no pass uses has no gradient. Leaves no tensor behind.
 */
export function sumGradients(
  parameters: Iterable<tf.Variable>,
  passes: readonly (() => tf.Scalar)[],
): { readonly loss: number; readonly gradients: Gradients } {
  const variables = [...parameters];
  const gradients = new Map<string, Float32Array>();
  let loss = 0;
  for (const computeLoss of passes) {
    tf.tidy(() => {
      const { value, grads } = tf.variableGrads(computeLoss, variables);
      loss += value.dataSync()[0]!;
      for (const [name, gradient] of Object.entries(grads)) {
        const sum = gradients.get(name) ?? new Float32Array(gradient.size);
        gradients.set(name, sum);
        const values = gradient.dataSync();
        for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!;
      }
    });
  }
  return { loss, gradients };
}
