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
        const { policy } = await openPolicy({ model }, 'adapter to be merged');
        if (policy.lora === null) {
          policy.dispose();
          throw new OptimaError('usage', `${model}: has no adapter: it is a whole checkpoint already.`);
        }
        const write = async () => {
          const { hash, difference, greatest, figure } = await policy.saveMerged(out, (staged) =>
            check(policy, staged, model),
          );
          output.say(`policy ${policy.hash} is merged, in float32: ${figure}`);
          output.say(`policy ${hash}: ${options.out}`);
          output.emit({ event: 'summary', adapter: policy.hash, policy: hash, out, difference, greatest });
        };
        await cleaningUp(write, () => policy.dispose());
      }),
    );
}

/** Throws `checkpoint.invalid` where what was written, read again, says something else than the base with its adapter. */
async function check(policy: LlamaPolicy, folder: string, model: string) {
  const { loadPolicy } = await import('../models/llama/index.ts');
  const merged = await loadPolicy(folder, { frozen: true });
  try {
    const { difference, greatest } = await compareLogits(policy, merged);
    const figure = `largest difference of a logit ${difference.toExponential(1)}, the greatest is ${greatest.toFixed(1)}`;
    if (!(difference <= tolerance * Math.max(1, greatest))) {
      throw new OptimaError('checkpoint.invalid', `${model}: merged it says something else: ${figure}.`);
    }
    return { hash: merged.hash, difference, greatest, figure };
  } finally {
    merged.dispose();
  }
}

/** How far the logits of two policies lie apart on random tokens, and the greatest of them. */
async function compareLogits(
  one: LlamaPolicy,
  other: LlamaPolicy,
): Promise<{ readonly difference: number; readonly greatest: number }> {
  const { tf } = await import('../tensor/index.ts');
  const { vocab_size, max_position_embeddings: context } = one.config;
  const [rows, tokens] = [probe.rows, Math.min(probe.tokens, context)];
  const rng = createRng('merge');
  const ids = Int32Array.from({ length: rows * tokens }, () => rng.int(vocab_size));
  return tf.tidy(() => {
    const [before, after] = [one, other].map((policy) =>
      policy.computeLogits(tf.tensor2d(ids, [rows, tokens], 'int32')),
    );
    const largest = (x: ReturnType<typeof tf.abs>) => tf.max(tf.abs(x)).dataSync<'float32'>()[0]!;
    return { difference: largest(tf.sub(before!, after!)), greatest: largest(before!) };
  });
}
