// Seconds of a step of preference training, as src/training/dpo takes it with two workers: forward and backward pass over a
// batch of pairs, packed to trees of tokens, and AdamW. All batches are trained on twice; the second time counts.
// node --import tsx bench/dpo-step.ts <file that bench/peers/export-run.ts wrote> [workers]
import fs from 'node:fs';
import { loadPolicy } from '../src/models/llama/index.ts';
import { startEngine } from '../src/tensor/index.ts';
import { createAdamW } from '../src/training/adamw.ts';
import { type DpoConfig, dpoObjective, type PreferenceExample } from '../src/training/dpo/index.ts';
import { takeStep } from '../src/training/step.ts';
import { Workers } from '../src/workers/index.ts';
import { countArgument } from './shared.ts';

const file = process.argv[2];
if (file === undefined) throw new RangeError('Say which pairs: dpo-step.ts <file> [workers]');
const given: { policy: string; recipe: { dpo: DpoConfig }; batches: PreferenceExample[][] } = JSON.parse(
  fs.readFileSync(file, 'utf8'),
);
const { batches } = given;
const { dpo } = given.recipe;
const engine = await startEngine({ threads: 1 });
const policy = await loadPolicy(given.policy);
const workers = await Workers.start(countArgument(1, 2), { backend: engine.backend });
const objective = dpoObjective(dpo);
const optimizer = createAdamW(policy.parameters, dpo);
const { learningRate, tokensPerPass } = dpo;
const computePasses = workers.gradientsOf(objective, { folder: given.policy, hash: policy.hash }, policy);
const [seconds, cpuSeconds, losses]: [number[], number[], number[]] = [[], [], []];
let first: object = {};
for (const [step, batch] of [...batches, ...batches].entries()) {
  const startedAt = performance.now();
  const cpuBefore = process.cpuUsage();
  const report = await takeStep(policy, objective, optimizer, batch, {
    learningRate,
    tokensPerPass,
    computePasses,
  });
  if (step >= batches.length) {
    seconds.push((performance.now() - startedAt) / 1000);
    const { user, system } = process.cpuUsage(cpuBefore);
    cpuSeconds.push((user + system) / 1e6);
  }
  if (step === 0) first = report.figures;
  losses.push(report.loss);
}
console.log(
  JSON.stringify({ engine: engine.name, workers: workers.count, seconds, cpuSeconds, losses, first }),
);
await workers.stop();
