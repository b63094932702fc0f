// Seconds of one training step, as src/training/sft takes it: forward and backward pass of a small decoder over
// 32 sequences of 128 tokens, and AdamW.
// node --import tsx bench/tensor-step.ts [steps] [steps before] [workers]
// OPTIMA_BACKEND and OPTIMA_BLAS choose the engine; without workers the main thread computes the batch in one pass.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { heapBytes, startEngine } from '../src/tensor/index.ts';
import { createAdamW } from '../src/training/adamw.ts';
import { defaultSftConfig } from '../src/training/sft/index.ts';
import { takeSftStep } from '../src/training/sft/step.ts';
import { Workers } from '../src/workers/index.ts';
import { countArgument, createBenchPolicy, randomIds, report, rounded } from './shared.ts';

const [rows, time] = [32, 128];
const steps = countArgument(0, 5);
// Until V8 has compiled what runs often.
const stepsBefore = countArgument(1, 3);
const workerCount = countArgument(2, 0);

const engine = await startEngine(workerCount > 0 ? { blasThreads: 1 } : {});
const { policy, rng } = createBenchPolicy();
const optimizer = createAdamW(policy.parameters, defaultSftConfig);
// The last token of a sequence is only predicted, the first one only read.
const lossMask = Array.from({ length: time + 1 }, () => 1 as const);
const batch = Array.from({ length: rows }, () => ({ tokenIds: randomIds(policy, rng, time + 1), lossMask }));
const workers = workerCount > 0 ? await Workers.start(workerCount, { backend: engine.backend }) : null;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-bench-'));
const hash = await policy.save(folder);
const options = {
  learningRate: 1e-4,
  tokensPerPass: (rows * (time + 1)) / Math.max(1, workerCount),
  computePasses: workers?.gradientsOf({ folder, hash }, policy),
};
const step = () => takeSftStep(policy, optimizer, batch, options);

for (let i = 0; i < stepsBefore; i++) await step();
let loss = Number.NaN;
const seconds: number[] = [];
const cpuBefore = process.cpuUsage();
for (let i = 0; i < steps; i++) {
  const startedAt = performance.now();
  ({ loss } = await step());
  seconds.push((performance.now() - startedAt) / 1000);
}
const cpu = process.cpuUsage(cpuBefore);
seconds.sort((a, b) => a - b);
const median = seconds[steps >> 1]!;
report({
  bench: 'tensor-step',
  engine,
  workers: workerCount,
  steps,
  tokensPerStep: rows * time,
  secondsPerStep: rounded(median, 4),
  bestSeconds: rounded(seconds[0]!, 4),
  cpuSeconds: rounded((cpu.user + cpu.system) / 1e6 / steps, 4),
  tokensPerSecond: Math.round((rows * time) / median),
  heapMiB: Math.round(heapBytes() / 2 ** 20),
  loss: rounded(loss, 5),
});
await workers?.stop();
fs.rmSync(folder, { recursive: true });
