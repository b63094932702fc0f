// Seconds of one training step, as src/training/sft takes it: forward and backward pass over a batch, and AdamW.
// node --import tsx bench/tensor-step.ts [reference|tiny] [workers] [steps] [steps before]
// OPTIMA_BACKEND, OPTIMA_MACHINE_CODE and OPTIMA_BLAS choose the engine; without workers the main thread computes the batch in one pass.
import { heapBytes, startEngine } from '../src/tensor/index.ts';
import { createAdamW } from '../src/training/adamw.ts';
import { defaultSftConfig, sftObjective } from '../src/training/sft/index.ts';
import { takeStep } from '../src/training/step.ts';
import { Workers } from '../src/workers/index.ts';
import { countArgument, openSubject, report, rounded, shapeArgument, trainingBatch } from './shared.ts';

const shape = shapeArgument(0);
const workerCount = countArgument(1, 0);
const steps = countArgument(2, 15);
// Until V8 has compiled what runs often.
const stepsBefore = countArgument(3, 6);

const engine = await startEngine(workerCount > 0 ? { threads: 1 } : {});
const subject = await openSubject(shape);
const { policy, source } = subject;
const optimizer = createAdamW(policy.parameters, defaultSftConfig);
const batch = await trainingBatch(subject);
const tokens = batch.reduce((sum, { tokenIds }) => sum + tokenIds.length - 1, 0);
const workers = workerCount > 0 ? await Workers.start(workerCount, { backend: engine.backend }) : null;
const options = {
  learningRate: 1e-4,
  // With workers as a run does it; else all at once.
  tokensPerPass: workers === null ? Number.POSITIVE_INFINITY : defaultSftConfig.tokensPerPass,
  computePasses: workers?.gradientsOf(sftObjective, source, policy),
};
const step = () => takeStep(policy, sftObjective, optimizer, batch, options);

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
  shape,
  workers: workerCount,
  steps,
  tokensPerStep: tokens,
  secondsPerStep: rounded(median, 4),
  bestSeconds: rounded(seconds[0]!, 4),
  cpuSeconds: rounded((cpu.user + cpu.system) / 1e6 / steps, 4),
  tokensPerSecond: Math.round(tokens / median),
  heapMiB: Math.round(heapBytes() / 2 ** 20),
  loss: rounded(loss, 5),
});
await workers?.stop();
