// How fast this machine computes a model of some shape, from one layer of it: what turns operations into hours.
import { createRng } from '../domain/rng.ts';
import type { LlamaConfig } from '../models/llama/config.ts';
import { createPolicy } from '../models/llama/index.ts';
import { forwardOperations } from '../models/llama/size.ts';
import { tokenizerFrom, trainTokenizer } from '../models/tokenizer/index.ts';
import { sftObjective } from '../training/sft/index.ts';
import { computePassGradients } from '../training/step.ts';

/** Floating-point operations a second of one thread. */
export interface Speed {
  readonly reading: number;
  readonly training: number;
  /** Seconds that it took to find out. */
  readonly seconds: number;
}

const vocabulary = 1024;
const [promptTokens, rows, newTokens] = [64, 16, 16];
const [sequences, sequenceTokens, ownTokens] = [2, 128, 48];

/**
 * Writes with a random model of one layer, and computes a gradient, twice each, the first time to warm up. Shared prompts, idle rows
 * and a large vocabulary make a run's speed another by a factor of up to two. The engine must have been started;
 * `now` is a clock in milliseconds.
 */
export async function measureSpeed(shape: LlamaConfig, now: () => number): Promise<Speed> {
  const began = now();
  const ids = { bos_token_id: null, eos_token_id: null, pad_token_id: null };
  const config = { ...shape, ...ids, vocab_size: vocabulary, num_hidden_layers: 1 };
  const files = trainTokenizer([''], { vocabSize: 261 });
  const tokenizer = tokenizerFrom(files.tokenizerJson, files.tokenizerConfig);
  const policy = createPolicy(config, tokenizer, createRng(1));
  try {
    const each = forwardOperations(policy.config, promptTokens);
    const write = async (round: number) => {
      const requests = Array.from({ length: rows }, (_, i) => ({
        id: `${i}`,
        messages: [{ role: 'user' as const, content: String.fromCharCode(97 + i).repeat(promptTokens) }],
        sampling: { temperature: 1, topP: 1, topK: 0, maxTokens: newTokens },
        seed: round,
      }));
      const written = await policy.generate(requests);
      return (
        written.reduce((sum, { tokenIds, promptTokens: read }) => sum + tokenIds.length + read, 0) * each
      );
    };
    const example = {
      tokenIds: Array.from({ length: sequenceTokens + 1 }, (_, i) => i % 256),
      lossMask: Array.from(
        { length: sequenceTokens + 1 },
        (_, i) => (i > sequenceTokens - ownTokens ? 1 : 0) as 0 | 1,
      ),
    };
    const learn = () => {
      const pass = Array.from({ length: sequences }, () => example);
      computePassGradients(policy, sftObjective, pass, sequences * ownTokens);
      return 3 * sequences * sequenceTokens * forwardOperations(policy.config, sequenceTokens / 2);
    };
    return {
      reading: await perSecond(write, now),
      training: await perSecond(async () => learn(), now),
      seconds: (now() - began) / 1000,
    };
  } finally {
    policy.dispose();
  }
}

/** Operations a second of the second round. */
async function perSecond(work: (round: number) => Promise<number>, now: () => number): Promise<number> {
  await work(0);
  const from = now();
  const operations = await work(1);
  return (operations * 1000) / Math.max(1e-3, now() - from);
}
