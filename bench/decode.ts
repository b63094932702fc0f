// Decoding throughput of the embedded model: new tokens per second, with the reading of the prompts and without.
// node --import tsx bench/decode.ts [rows…]   (OPTIMA_BACKEND and OPTIMA_BLAS choose the engine)
import { createRng } from '../src/domain/rng.ts';
import { parseLlamaConfig } from '../src/models/llama/config.ts';
import type { Decoder } from '../src/models/llama/forward.ts';
import { generateTokens } from '../src/models/llama/generate.ts';
import { RotaryTable } from '../src/models/llama/rotary.ts';
import { arrangeWeights, initialWeights } from '../src/models/llama/weights.ts';
import { startEngine, tf } from '../src/tensor/index.ts';

const promptTokens = 200;
const newTokens = 64;
const batches = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1, 16, 64];
const config = parseLlamaConfig({
  vocab_size: 512,
  hidden_size: 128,
  intermediate_size: 352,
  num_hidden_layers: 4,
  num_attention_heads: 4,
});

const engine = await startEngine();
const rng = createRng(1);
const parameters = new Map(
  [...initialWeights(config, rng)].map(([name, { shape, values }]) => [name, tf.tensor(values, [...shape])]),
);
const decoder: Decoder = {
  config,
  weights: arrangeWeights(config, parameters),
  rotary: new RotaryTable(config),
};

/** Seconds that a batch takes to read its prompts and write `maxTokens` each. */
async function measure(rows: number, maxTokens: number): Promise<number> {
  const jobs = Array.from({ length: rows }, (_, row) => ({
    id: `row ${row}`,
    promptIds: Array.from({ length: promptTokens }, () => rng.int(config.vocab_size)),
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens },
    seed: row,
  }));
  const startedAt = performance.now();
  await generateTokens(decoder, jobs, { stopIds: new Set(), maxRows: rows, tokenBudget: 8192 });
  return (performance.now() - startedAt) / 1000;
}

for (const rows of batches) {
  await measure(rows, newTokens);
  const promptSeconds = await measure(rows, 1);
  const seconds = await measure(rows, 1 + newTokens);
  console.log(
    JSON.stringify({
      bench: 'decode',
      engine: engine.description,
      rows,
      promptTokens,
      newTokens,
      tokensPerSecond: Math.round((rows * newTokens) / (seconds - promptSeconds)),
      tokensPerSecondWithPrompts: Math.round((rows * (1 + newTokens)) / seconds),
      promptTokensPerSecond: Math.round((rows * promptTokens) / promptSeconds),
    }),
  );
}
