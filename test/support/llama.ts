// Small random decoders for tests, with weights large enough that their logits lie well apart.
import * as assert from 'uvu/assert';
import type { GenerationRequest, Sampling } from '../../src/domain/model.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { LlamaConfigInput } from '../../src/models/llama/config.ts';
import { createPolicy, type LlamaOptions, type LlamaPolicy } from '../../src/models/llama/index.ts';
import { tf } from '../../src/tensor/index.ts';
import { lettersTokenizer } from './letters.ts';

export const tinyConfig = {
  vocab_size: 40,
  hidden_size: 32,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
} satisfies LlamaConfigInput;

/** A policy whose matrices are `gain` times the usual first values. */
export function createTinyPolicy(
  overrides: Partial<LlamaConfigInput> = {},
  { gain = 20, seed = 7, ...options }: LlamaOptions & { gain?: number; seed?: number } = {},
): LlamaPolicy {
  const policy = createPolicy({ ...tinyConfig, ...overrides }, lettersTokenizer, createRng(seed), options);
  tf.tidy(() => {
    for (const variable of policy.parameters.values()) {
      if (variable.rank === 2) variable.assign(tf.mul(variable, gain));
    }
  });
  policy.refreshHash();
  return policy;
}

export const greedy: Sampling = { temperature: 0, topP: 1, topK: 0, maxTokens: 24 };

/** A request whose prompt is one user message. */
export function request(content: string, sampling: Partial<Sampling> = {}, seed = 1): GenerationRequest {
  return {
    id: content.slice(0, 12),
    messages: [{ role: 'user', content }],
    sampling: { ...greedy, ...sampling },
    seed,
  };
}

/**
 * Asserts that a loss has a gradient with respect to each parameter, along which it grows by the step times the gradient's norm.
 * `rounding` is the loss's, relative.
 */
export function checkGradients(
  parameters: ReadonlyMap<string, tf.Variable>,
  loss: () => tf.Scalar,
  rounding: number,
): void {
  const { grads, value } = tf.variableGrads(loss, [...parameters.values()]);
  for (const [name, variable] of parameters) {
    const gradient = grads[variable.name];
    assert.ok(gradient, `${name} has no gradient`);
    const [norm, size] = tf.tidy(() => [gradient, variable].map((x) => tf.norm(x).dataSync()[0]!)) as [
      number,
      number,
    ];
    assert.ok(norm > 0, `${name} has a gradient of zeros`);
    const step = 1e-3 * size;
    const before = variable.clone();
    const [ahead, behind] = [1, -1].map((sign) =>
      tf.tidy(() => {
        variable.assign(tf.add(before, tf.mul(gradient, (sign * step) / norm)));
        return loss().dataSync()[0]!;
      }),
    ) as [number, number];
    variable.assign(before);
    before.dispose();
    const slope = (ahead - behind) / (2 * step);
    const noise = (rounding * ahead) / step;
    assert.ok(Math.abs(slope - norm) < 0.02 * norm + noise, `${name}: slope ${slope}, norm ${norm}`);
  }
  tf.dispose([value, grads]);
}
