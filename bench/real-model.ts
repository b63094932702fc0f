// What a real checkpoint costs in process: one measure of one folder in a process of its own, as a line of JSON.
// node --import tsx bench/real-model.ts load|prefill|decode|step <folder> [workers] [rows], or logits|tokens <folder> <file>
// Side by side with PyTorch and llama.cpp: bench/peers/real_model.py.
import fs from 'node:fs';
import { adaptableMatrices } from '../src/domain/lora.ts';
import type { GenerationRequest } from '../src/domain/model.ts';
import { createRng } from '../src/domain/rng.ts';
import { freshAdapter } from '../src/models/llama/adapter.ts';
import { loadPolicy } from '../src/models/llama/index.ts';
import { computeNumbers, startEngine, tf } from '../src/tensor/index.ts';
import { createAdamW } from '../src/training/adamw.ts';
import { defaultSftConfig, sftObjective } from '../src/training/sft/index.ts';
import { takeStep } from '../src/training/step.ts';
import { sourceOfPolicy } from '../src/workers/host.ts';
import { Workers } from '../src/workers/index.ts';
import { countArgument, createMemory, randomIds, rounded } from './shared.ts';

const [measure, folder] = process.argv.slice(2);
if (measure === undefined || folder === undefined) {
  throw new RangeError(
    'Say what to measure, and of which folder: real-model.ts load|prefill|decode|step|logits|tokens <folder>',
  );
}
const workerCount = ['logits', 'tokens'].includes(measure) ? 0 : countArgument(2, 0);
const rows = countArgument(3, 1);
const promptTokens = measure === 'prefill' ? 512 : 64;
const newTokens = 64;

const startedAt = performance.now();
const engine = await startEngine(workerCount > 0 ? { threads: 1 } : {});
// As commands do.
const policy = await loadPolicy(folder, { frozen: true });
const loadSeconds = (performance.now() - startedAt) / 1000;
const rng = createRng(1);
const source = sourceOfPolicy(policy, folder);

/** Seconds of the wall and of the processor that `work` takes. */
async function time(work: () => unknown): Promise<{ readonly seconds: number; readonly cpuSeconds: number }> {
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(cpuBefore);
  return { seconds, cpuSeconds: (user + system) / 1e6 };
}

function say(figures: object): void {
  // What this program held, where `maxRSS` begins with what its parent did.
  const held = /VmHWM:\s+(\d+) kB/.exec(fs.readFileSync('/proc/self/status', 'utf8'));
  const peakMiB = Math.round(Number(held?.[1]) / 1024);
  console.log(
    JSON.stringify({ measure, engine: engine.name, workers: workerCount, rows, ...figures, peakMiB }),
  );
}

const models = async () => {
  if (workerCount === 0) return { models: [policy], stop: async () => {} };
  const workers = await Workers.start(workerCount, { backend: engine.backend });
  return { models: await workers.modelsOf(source), stop: () => workers.stop() };
};

/** Prompts and answers of all rows, shared among the threads; new prompts with each call. */
async function decode(): Promise<object> {
  const { models: speakers, stop } = await models();
  let calls = 0;
  const answer = async (maxTokens: number) => {
    const call = calls++;
    const requests: GenerationRequest[] = Array.from({ length: rows }, (_, row) => ({
      id: `row ${row}`,
      messages: [{ role: 'assistant', content: '', tokenIds: randomIds(policy, rng, promptTokens) }],
      sampling: { temperature: 1, topP: 1, topK: 0, maxTokens },
      seed: call * rows + row,
    }));
    const share = () =>
      speakers.map((model, i) => model.generate(requests.filter((_, row) => row % speakers.length === i)));
    let tokens = 0;
    const cost = await time(async () => {
      tokens = (await Promise.all(share())).flat().reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    });
    return { ...cost, tokens };
  };
  await answer(8);
  const prompts = await answer(1);
  const whole = await answer(1 + newTokens);
  await stop();
  const tokens = whole.tokens - rows;
  return {
    promptTokensPerSecond: rounded((rows * promptTokens) / prompts.seconds, 1),
    promptTokensPerCpuSecond: rounded((rows * promptTokens) / prompts.cpuSeconds, 1),
    tokensPerSecond: rounded(tokens / (whole.seconds - prompts.seconds), 2),
    tokensPerCpuSecond: rounded(tokens / (whole.cpuSeconds - prompts.cpuSeconds), 2),
  };
}

/** A step of LoRA (rank 16, every matrix of a layer) on 8 random sequences of 256 tokens: the first one, and the better of two more. */
async function step(): Promise<object> {
  const lora = { rank: 16, alpha: 32, dropout: 0, targets: adaptableMatrices };
  const trainee = policy.withAdapter(freshAdapter(policy.config, lora, rng.split('adapter')));
  const workers = workerCount > 0 ? await Workers.start(workerCount, { backend: engine.backend }) : null;
  const optimizer = createAdamW(trainee.parameters, defaultSftConfig);
  const lossMask = Array.from({ length: 257 }, () => 1 as const);
  const batch = Array.from({ length: 8 }, () => ({ tokenIds: randomIds(policy, rng, 257), lossMask }));
  const steps: Awaited<ReturnType<typeof time>>[] = [];
  let loss = Number.NaN;
  for (let i = 0; i < 3; i++) {
    const cost = await time(async () => {
      const options = {
        learningRate: 1e-4,
        tokensPerPass: 1024,
        computePasses: workers?.gradientsOf(sftObjective, source, trainee),
      };
      ({ loss } = await takeStep(trainee, sftObjective, optimizer, batch, options));
    });
    steps.push(cost);
  }
  await workers?.stop();
  return {
    firstStepSeconds: rounded(steps[0]!.seconds, 2),
    secondsPerStep: rounded(Math.min(...steps.slice(1).map(({ seconds }) => seconds)), 2),
    cpuSecondsPerStep: rounded(Math.min(...steps.slice(1).map(({ cpuSeconds }) => cpuSeconds)), 2),
    loss: rounded(loss, 4),
  };
}

/** Logits [n, vocab] of given ids by both ways through the decoder, each in a file of float32. */
async function logits(): Promise<object> {
  const ids: number[] = JSON.parse(fs.readFileSync(process.argv[4]!, 'utf8'));
  const files = { training: `${process.argv[4]}.training`, decoding: `${process.argv[4]}.decoding` };
  const whole = computeNumbers(() => policy.computeLogits(tf.tensor2d(ids, [1, ids.length], 'int32')));
  fs.writeFileSync(files.training, whole);
  const { decoder } = createMemory(policy.lora === null ? policy : policy.merge());
  const blocks = Array.from({ length: Math.ceil(ids.length / 16) }, () => decoder.allocate());
  const step = new Float32Array(whole.length);
  ids.forEach((id, start) => {
    decoder.read([{ ids: [id], start, blocks: blocks.slice(0, Math.floor(start / 16) + 1) }]);
    step.set(decoder.logits([0])[0]!.values, start * policy.config.vocab_size);
  });
  fs.writeFileSync(files.decoding, step);
  return files;
}

/** Token ids of the texts in a file. */
async function tokens(): Promise<object> {
  const texts: string[] = JSON.parse(fs.readFileSync(process.argv[4]!, 'utf8'));
  return { tokens: texts.map((text) => policy.tokenizer.encode(text)) };
}

const measures: Readonly<Record<string, () => Promise<object>>> = {
  load: async () => ({ loadSeconds: rounded(loadSeconds, 3) }),
  prefill: decode,
  decode,
  step,
  logits,
  tokens,
};
const chosen = measures[measure];
if (chosen === undefined)
  throw new RangeError(`"${measure}" is no measure: ${Object.keys(measures).join(', ')}.`);
say(await chosen());
policy.dispose();
