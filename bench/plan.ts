// Whether `optima plan` is right: for random models of four shapes, trained whole, by LoRA, and by LoRA with recomputation, the peak
// of memory that it states for a small run beside what such a process comes to (VmHWM of Linux), after its first evaluation, which
// only decodes, and at its end. And seconds: those of the processor that the run took in all threads, its start included, beside what
// the stated operations take at the speed at which a layer computes, by the processor's clock too: neither asks who else computes.
// node --import tsx bench/plan.ts [shape] [training] [workers], e.g. `bench/plan.ts wide lora 2`; by default all, with 2 workers.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { formatTable } from '../src/cli/output.ts';
import { createRng } from '../src/domain/rng.ts';
import { createPolicy } from '../src/models/llama/index.ts';
import { loadTokenizer } from '../src/models/tokenizer/index.ts';
import { measureSpeed } from '../src/run/calibrate.ts';
import { shippedFolder } from '../src/run/locate.ts';
import type { Resources } from '../src/run/resources.ts';
import { startEngine } from '../src/tensor/index.ts';

const shapes = {
  narrow: { ...size(4096, 256, 704, 8), num_attention_heads: 4, tie_word_embeddings: true },
  wide: {
    ...size(16_384, 512, 1376, 8),
    num_attention_heads: 8,
    num_key_value_heads: 2,
    tie_word_embeddings: true,
  },
  large: { ...size(32_768, 384, 1024, 12), num_attention_heads: 6, tie_word_embeddings: false },
  deep: {
    ...size(4096, 192, 512, 30),
    num_attention_heads: 6,
    num_key_value_heads: 3,
    tie_word_embeddings: true,
  },
};
type Shape = keyof typeof shapes;

const trainings = {
  whole: [],
  lora: ['--set', 'lora.rank=16'],
  recompute: ['--set', 'lora.rank=16', '--set', 'lora.recompute=true'],
};
type Training = keyof typeof trainings;

function size(vocab_size: number, hidden_size: number, intermediate_size: number, num_hidden_layers: number) {
  return { vocab_size, hidden_size, intermediate_size, num_hidden_layers, max_position_embeddings: 2048 };
}

/** A random model says nothing of worth, and all of it is trained on. */
const settings = [
  ...['initialization.tasks=8', 'initialization.samplesPerTask=2', 'initialization.thetaInit=-100'],
  ...['isft.tasks=8', 'isft.samplesPerTask=2', 'isft.thetaSft=-100', 'iterations=1'],
  ...['eligible.cappedMessage=true', 'eligible.emptyMessage=true', 'eligible.repetition=true'],
  ...['sft.batchSize=8', 'sft.epochs=1', 'sft.tokensPerPass=1024', 'maxMessageTokens=8'],
  ...['evaluation.tasks=8', 'concurrency=4'],
].flatMap((setting) => ['--set', setting]);

const [onlyShape, onlyTraining, workers = '2'] = process.argv.slice(2);
const root = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-bench-plan-'));
const launcher = path.join(import.meta.dirname, '../bin/optima.js');

/** A tick of Linux' clock of processes, seconds. */
const tick = 0.01;
const processorMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/**
 * Runs a command; `onEvent` hears its lines with the most that the process has held so far, bytes. Returns that of its end, and the
 * processor's seconds.
 */
async function optima(
  args: readonly string[],
  onEvent: (event: Record<string, unknown>, held: number) => void,
) {
  const child = spawn(process.execPath, [launcher, ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [most, seconds] = [0, 0];
  const look = () => {
    try {
      const [, times] = fs.readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ');
      const [user, system] = times!.split(' ').slice(11, 13).map(Number);
      seconds = tick * (user! + system!);
      const status = fs.readFileSync(`/proc/${child.pid}/status`, 'utf8');
      most = Math.max(most, 1024 * Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0));
    } catch {
      // It has ended.
    }
    return most;
  };
  const timer = setInterval(look, 50);
  let complaint = '';
  child.stderr.on('data', (text) => {
    complaint += text;
  });
  createInterface(child.stdout).on('line', (line) => {
    const event = JSON.parse(line);
    if (event.event === 'error') complaint += line;
    onEvent(event, look());
  });
  const code = await new Promise((resolve) => child.on('close', resolve));
  clearInterval(timer);
  if (code !== 0) throw new Error(`optima ${args.join(' ')} ended with ${code}: ${complaint}`);
  return { held: most, seconds };
}

const MiB = (bytes: number) => Math.round(bytes / 2 ** 20);
const rows = [
  [
    ...['shape', 'training', 'M parameters', 'decoding: stated', 'held', 'ratio'],
    ...['training: stated', 'held', 'ratio', 'seconds: stated', 'taken'],
  ],
];
try {
  await startEngine();
  const tokenizer = await loadTokenizer(shippedFolder);
  for (const [name, config] of Object.entries(shapes) as [Shape, (typeof shapes)[Shape]][]) {
    if (onlyShape !== undefined && onlyShape !== name) continue;
    const folder = path.join(root, name);
    const policy = createPolicy(config, tokenizer, createRng(1));
    await policy.save(folder);
    const speed = await measureSpeed(policy.config, processorMs);
    policy.dispose();
    for (const [training, changes] of Object.entries(trainings) as [Training, readonly string[]][]) {
      if (onlyTraining !== undefined && onlyTraining !== training) continue;
      const asked = ['pages-qa', '--model', folder, '--recipe', 'isft', '--workers', workers];
      asked.push(...settings, ...changes);
      let stated: Resources | undefined;
      await optima(['plan', ...asked], (event) => {
        if (event.event === 'resources') stated = event as unknown as Resources;
      });
      let decoding = 0;
      const run = path.join(root, `${name}-run`);
      const { held, seconds } = await optima(['train', ...asked, '--anyway', '--out', run], (event, held) => {
        if (event.event === 'evaluation' && event.phase === 'base') decoding = held;
      });
      fs.rmSync(run, { recursive: true });
      const { parameters, decodingBytes, peakBytes, operations } = stated!;
      const inTheory = operations.reading / speed.reading + operations.training / speed.training;
      rows.push([
        ...[name, training, (parameters / 1e6).toFixed(1)],
        ...[`${MiB(decodingBytes)} MiB`, `${MiB(decoding)} MiB`, (decodingBytes / decoding).toFixed(2)],
        ...[`${MiB(peakBytes)} MiB`, `${MiB(held)} MiB`, (peakBytes / held).toFixed(2)],
        ...[`${Math.round(inTheory)} s`, `${Math.round(seconds)} s`],
      ]);
      console.log(formatTable(rows));
    }
  }
} finally {
  fs.rmSync(root, { recursive: true });
}
