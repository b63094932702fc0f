// `optima merge <model>`: a base and its adapter as one checkpoint, for what reads no adapters.
import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { cleaningUp, OptimaError } from '../domain/errors.ts';
import { createRng } from '../domain/rng.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import { openEngine, openPolicy } from './model.ts';
import { type Backend, backendOption, jsonOption } from './options.ts';
import { withOutput } from './output.ts';

interface MergeOptions {
  readonly out: string;
  readonly backend?: Backend;
  readonly json?: boolean;
}

/** Tokens on which the merged weights are held against the adapter, in sequences. */
const probe = { rows: 4, tokens: 32 };
/** Most that a logit may differ, of the greatest. */
const tolerance = 1e-4;

export function addMerge(program: Command): void {
  program
    .command('merge')
    .argument('<model>', 'folder of an adapter, or a run that trained one')
    .description('write a base and its LoRA adapter as one checkpoint')
    .requiredOption('--out <folder>', 'folder of the checkpoint; it must not be there')
    .addOption(backendOption())
    .addOption(jsonOption())
    .action((model: string, options: MergeOptions) =>
      withOutput(options, async (output) => {
        const out = path.resolve(options.out);
        if (fs.existsSync(out)) {
          throw new OptimaError('usage', `--out ${options.out}: is there already.`, {
            hint: 'Name another folder.',
          });
        }
        await openEngine(options, output);
        const { writeWhole } = await import('../models/llama/checkpoint.ts');
        const { adapter, hash, difference, greatest } = await writeWhole(out, async (staging) => {
          const before = await write(model, staging);
          return { ...before, ...(await check(staging, before.logits, model)) };
        });
        output.say(`policy ${adapter} is merged, in float32: ${figure(difference, greatest)}`);
        output.say(`policy ${hash}: ${options.out}`);
        output.emit({ event: 'summary', adapter, policy: hash, out, difference, greatest });
      }),
    );
}

/** Writes a base and its adapter, merged, into a folder. What they say is kept, and they themselves are let go: one copy is enough. */
async function write(model: string, folder: string) {
  const { policy } = await openPolicy({ model }, 'adapter to be merged');
  return cleaningUp(
    async () => {
      if (policy.lora === null) {
        throw new OptimaError('usage', `${model}: has no adapter: it is a whole checkpoint already.`);
      }
      const logits = await computeLogits(policy);
      await policy.writeMerged(folder);
      return { adapter: policy.hash, logits };
    },
    () => policy.dispose(),
  );
}

/** Throws `checkpoint.invalid` where what was written, read again, says something else than the base with its adapter. */
async function check(folder: string, logits: Float32Array, model: string) {
  const { loadPolicy } = await import('../models/llama/index.ts');
  const merged = await loadPolicy(folder, { frozen: true });
  try {
    const after = await computeLogits(merged);
    let [difference, greatest] = [0, 0];
    for (const [i, logit] of logits.entries()) {
      difference = Math.max(difference, Math.abs(logit - after[i]!));
      greatest = Math.max(greatest, Math.abs(logit));
    }
    if (!(difference <= tolerance * Math.max(1, greatest))) {
      throw new OptimaError(
        'checkpoint.invalid',
        `${model}: merged it says something else: ${figure(difference, greatest)}.`,
      );
    }
    return { hash: merged.hash, difference, greatest };
  } finally {
    merged.dispose();
  }
}

const figure = (difference: number, greatest: number) =>
  `largest difference of a logit ${difference.toExponential(1)}, the greatest is ${greatest.toFixed(1)}`;

/** Logits of random tokens, the same for every policy of a vocabulary. */
async function computeLogits(policy: LlamaPolicy): Promise<Float32Array> {
  const { computeNumbers, tf } = await import('../tensor/index.ts');
  const { vocab_size, max_position_embeddings: context } = policy.config;
  const [rows, tokens] = [probe.rows, Math.min(probe.tokens, context)];
  const rng = createRng('merge');
  const ids = Int32Array.from({ length: rows * tokens }, () => rng.int(vocab_size));
  return computeNumbers(() => policy.computeLogits(tf.tensor2d(ids, [rows, tokens], 'int32')));
}
