// AdamW with gradient clipping: the optimizer of every training algorithm here.
import { adamWStep, sumOfSquares, tf } from '../tensor/index.ts';

export interface AdamWConfig {
  /** Decay rate of the mean gradient. */
  readonly beta1: number;
  /** Decay rate of the mean squared gradient. */
  readonly beta2: number;
  /** Keeps the update finite where gradients vanish. */
  readonly epsilon: number;
  /** Shrinks matrices by `learningRate · weightDecay` each step; vectors (norm weights) are left alone. */
  readonly weightDecay: number;
  /** Gradients whose joint Euclidean norm exceeds this are scaled down to it. */
  readonly clipNorm: number;
}

/** Gradients by variable name, each of its variable's size. */
export type Gradients = ReadonlyMap<string, Float32Array>;

export interface AdamW {
  /**
   * Moves the parameters one step against the gradients; a parameter without one stays. Returns the norm of
   * the gradients before clipping.
   */
  apply(gradients: Gradients, learningRate: number): number;
  /** Frees the moments. */
  dispose(): void;
}

/**
 * AdamW (Loshchilov and Hutter, 2019, algorithm 2) with clipping by global norm (Pascanu et al., 2013):
 *
 * g ← g · min(1, clipNorm / (‖g‖ + 1e-6))
 * m ← β₁·m + (1 − β₁)·g,  v ← β₂·v + (1 − β₂)·g²
 * θ ← θ − η·λ·θ − η · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
 *
 * with θ a parameter, η the learning rate, λ the weight decay, t the step counted from 1. Agrees with
 * `torch.nn.utils.clip_grad_norm_` followed by `torch.optim.AdamW`.
 */
export function createAdamW(parameters: ReadonlyMap<string, tf.Variable>, config: AdamWConfig): AdamW {
  const { beta1, beta2, epsilon, weightDecay, clipNorm } = config;
  const zeros = (shape: number[]) => tf.tidy(() => tf.variable(tf.zeros(shape), false));
  const slots = Array.from(parameters, ([name, parameter]) => ({
    name,
    state: { parameter, mean: zeros(parameter.shape), square: zeros(parameter.shape) },
    decay: parameter.rank > 1 ? weightDecay : 0,
  }));
  let step = 0;

  return {
    apply(gradients, learningRate) {
      const norm = globalNorm(gradients.values());
      const scale = Math.min(1, clipNorm / (norm + 1e-6));
      step++;
      const common = {
        beta1,
        gradientShare: (1 - beta1) * scale,
        beta2,
        squareShare: (1 - beta2) * scale * scale,
        rate: learningRate / (1 - beta1 ** step),
        correction: 1 / (1 - beta2 ** step),
        epsilon,
      };
      for (const { name, state, decay } of slots) {
        const gradient = gradients.get(name);
        if (gradient !== undefined) {
          adamWStep(state, gradient, { ...common, keepShare: 1 - learningRate * decay });
        }
      }
      return norm;
    },
    dispose() {
      for (const { state } of slots) tf.dispose([state.mean, state.square]);
    },
  };
}

function globalNorm(gradients: Iterable<Float32Array>): number {
  let sum = 0;
  for (const gradient of gradients) sum += sumOfSquares(gradient);
  return Math.sqrt(sum);
}
