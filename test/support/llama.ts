// Small random decoders for tests, with weights large enough that their logits lie well apart.
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
