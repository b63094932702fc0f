// Decoding throughput of the embedded model: new tokens per second, with the reading of the prompts and without.
// node --import tsx bench/decode.ts [rows…]   (OPTIMA_BACKEND and OPTIMA_BLAS choose the engine)
import { generateTokens } from '../src/models/llama/generate.ts';
import { startEngine } from '../src/tensor/index.ts';
import { createBenchPolicy, createMemory, randomIds, report, wholeNumber } from './shared.ts';

const promptTokens = 200;
const newTokens = 128;
const batches = process.argv.length > 2 ? process.argv.slice(2).map(wholeNumber) : [1, 16, 64];

const engine = await startEngine();
const { policy, rng } = createBenchPolicy();
const memory = createMemory(policy);

/** Seconds that a batch takes to read its prompts and write `maxTokens` each. */
async function measure(rows: number, maxTokens: number): Promise<number> {
  const jobs = Array.from({ length: rows }, (_, row) => ({
    id: `row ${row}`,
    promptIds: randomIds(policy, rng, promptTokens),
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens },
    seed: row,
  }));
  const startedAt = performance.now();
  await generateTokens(jobs, {
    stopIds: new Set(),
    maxRows: rows,
    tokenBudget: 1024,
    context: policy.config.max_position_embeddings,
    memory,
  });
  memory.forget();
  return (performance.now() - startedAt) / 1000;
}

for (const rows of batches) {
  await measure(rows, newTokens);
  const promptSeconds = await measure(rows, 1);
  const seconds = await measure(rows, 1 + newTokens);
  report({
    bench: 'decode',
    engine,
    rows,
    promptTokens,
    newTokens,
    tokensPerSecond: Math.round((rows * newTokens) / (seconds - promptSeconds)),
    tokensPerSecondWithPrompts: Math.round((rows * (1 + newTokens)) / seconds),
    promptTokensPerSecond: Math.round((rows * promptTokens) / promptSeconds),
  });
}
