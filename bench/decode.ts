// Decoding throughput: new tokens per second with the reading of the prompts and without, and prompt tokens per second.
// node --import tsx bench/decode.ts [reference|tiny] [workers] [prompt tokens] [rows…]
// OPTIMA_BACKEND, OPTIMA_MACHINE_CODE and OPTIMA_BLAS choose the engine; workers decode their shares of the rows side by side.
import type { GenerationRequest } from '../src/domain/model.ts';
import { startEngine } from '../src/tensor/index.ts';
import { Workers } from '../src/workers/index.ts';
import { countArgument, openSubject, randomIds, report, shapeArgument, wholeNumber } from './shared.ts';

const newTokens = 128;
const shape = shapeArgument(0);
const workerCount = countArgument(1, 0);
const promptTokens = countArgument(2, 200);
const batches = process.argv.length > 5 ? process.argv.slice(5).map(wholeNumber) : [1, 16, 64];

const engine = await startEngine({ threads: 1 });
const { policy, source, rng } = await openSubject(shape);
const workers = workerCount > 0 ? await Workers.start(workerCount, { backend: engine.backend }) : null;
const models = workers === null ? [policy] : await workers.modelsOf(source);

/** Seconds that a batch takes to read its prompts and write up to `maxTokens` each, and the tokens it wrote. */
async function measure(rows: number, maxTokens: number) {
  const requests: GenerationRequest[] = Array.from({ length: rows }, (_, row) => ({
    id: `row ${row}`,
    // The message's frame takes a few tokens more.
    messages: [{ role: 'assistant', content: '', tokenIds: randomIds(policy, rng, promptTokens) }],
    sampling: { temperature: 0.7, topP: 1, topK: 0, maxTokens },
    seed: row,
  }));
  const startedAt = performance.now();
  const answers = await Promise.all(
    models.map((model, i) => model.generate(requests.filter((_, row) => row % models.length === i))),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  return { seconds, tokens: answers.flat().reduce((sum, { tokenIds }) => sum + tokenIds.length, 0) };
}

for (const rows of batches) {
  await measure(rows, newTokens);
  const prompts = await measure(rows, 1);
  const whole = await measure(rows, 1 + newTokens);
  report({
    bench: 'decode',
    engine,
    shape,
    workers: workerCount,
    rows,
    promptTokens,
    newTokens,
    tokensPerSecond: Math.round((whole.tokens - rows) / (whole.seconds - prompts.seconds)),
    tokensPerSecondWithPrompts: Math.round(whole.tokens / whole.seconds),
    promptTokensPerSecond: Math.round((rows * promptTokens) / prompts.seconds),
  });
}
await workers?.stop();
