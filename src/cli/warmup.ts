// `optima warmup <scenario…>`: trains a small base model, from scratch or from a checkpoint, on what the scenarios demonstrate.
import { cpus } from 'node:os';
import path from 'node:path';
import type { Command } from 'commander';
import { cleaningUp, OptimaError } from '../domain/errors.ts';
import { loraFrom, requireTrainable } from '../recipe/lora.ts';
import { locateModel, shippedModel } from '../run/locate.ts';
import { temporaryFolder } from '../scenario/temporary.ts';
import type { Scenario } from '../scenario/types.ts';
import { warmupDefaults } from '../warmup/estimate.ts';
import { type PolicyHost, sourceOfPolicy } from '../workers/host.ts';
import { interruptible } from './interrupt.ts';
import { openEngines, openPolicy } from './model.ts';
import {
  type Backend,
  backendOption,
  collect,
  jsonOption,
  positiveNumber,
  seedOption,
  wholeNumber,
  workersOption,
} from './options.ts';
import { withOutput } from './output.ts';
import { openScenario } from './watch.ts';

interface WarmupOptions {
  readonly out?: string;
  readonly steps?: number;
  readonly dialogues: number;
  readonly echoSteps?: number;
  readonly learningRate: number;
  readonly saveEvery: number;
  readonly seed: number;
  readonly from?: string;
  readonly set?: readonly string[];
  readonly backend?: Backend;
  readonly workers?: number;
  readonly json?: boolean;
}

const defaultOf = (key: 'steps' | 'echoSteps') =>
  `(default: ${warmupDefaults.scratch[key]}, with --from ${warmupDefaults.from[key]})`;

export function addWarmup(program: Command): void {
  program
    .command('warmup')
    .argument('<scenario...>', 'scenarios with a demonstrator')
    .description(
      "make a base checkpoint from the scenarios' demonstrations, from scratch or from another one",
    )
    .option('--out <folder>', 'folder of the checkpoint (default: models/<scenario>)')
    .option('--from <folder>', `checkpoint to go on from, such as ${shippedModel}, instead of new weights`)
    .option(
      '--set <lora.key=value>',
      'train a LoRA adapter of --from, such as lora.rank=16; may be repeated',
      collect,
    )
    .option('--steps <n>', `optimizer steps ${defaultOf('steps')}`, wholeNumber('--steps', 1))
    .option(
      '--dialogues <n>',
      'dialogues of one step',
      wholeNumber('--dialogues', 1),
      warmupDefaults.dialogues,
    )
    .option(
      '--echo-steps <n>',
      `most steps spent on learning to copy ${defaultOf('echoSteps')}`,
      wholeNumber('--echo-steps', 0),
    )
    .option(
      '--learning-rate <x>',
      'peak learning rate',
      positiveNumber('--learning-rate'),
      warmupDefaults.learningRate,
    )
    .option('--save-every <n>', 'steps between saves', wholeNumber('--save-every', 1), 200)
    .addOption(seedOption(1))
    .addOption(backendOption())
    .addOption(workersOption())
    .addOption(jsonOption())
    .action((names: string[], options: WarmupOptions) =>
      withOutput(options, (output) =>
        interruptible(output, async (signal) => {
          const lora = loraFrom(options.set ?? []);
          if (lora !== undefined && options.from === undefined) {
            throw new OptimaError('usage', '--set lora.…: an adapter of what? Give --from <checkpoint>.');
          }
          const from = options.from === undefined ? undefined : await locateModel(options.from, '--from');
          const scenarios: Scenario[] = [];
          for (const name of names) scenarios.push((await openScenario(name, signal)).scenario);
          const { engine, startHost } = await openEngines(options, output);
          const { tinyArchitecture, warmUp } = await import('../warmup/warmup.ts');
          const { sftObjective } = await import('../training/sft/index.ts');
          const training = lora && { dropout: lora.dropout, recompute: lora.recompute ?? false };
          const initFrom =
            from === undefined
              ? undefined
              : (await openPolicy({ model: from }, undefined, { training, frozen: lora !== undefined }))
                  .policy;
          if (initFrom !== undefined) requireTrainable(initFrom, lora);
          const { steps, echoSteps } = {
            ...warmupDefaults[from === undefined ? 'scratch' : 'from'],
            ...options,
          };
          const { out = path.join('models', scenarios[0]!.name.replace(':', '-')) } = options;
          // Where workers find the weights that the training began with, whenever they come to need them.
          const first = temporaryFolder('warmup');
          let host: PolicyHost | undefined;
          const warm = async () => {
            output.progress.begin('warmup', steps, 'steps');
            const policy = await warmUp({
              initFrom,
              lora,
              gradientsOf: async (policy) => {
                host = await startHost(policy);
                const { base } = policy;
                const folder = path.join(first.path, 'policy');
                const source =
                  policy.lora !== null && base.folder !== null
                    ? sourceOfPolicy(base, base.folder)
                    : { folder, hash: await policy.save(folder) };
                return host.gradientsOf(sftObjective, source, policy);
              },
              scenarios,
              seed: options.seed,
              steps,
              dialoguesPerStep: options.dialogues,
              echoSteps,
              learningRate: options.learningRate,
              saveEvery: options.saveEvery,
              out: path.resolve(out),
              architecture: tinyArchitecture,
              command: ['npx optima', ...process.argv.slice(2)].join(' '),
              engine: `engine: ${engine.description}, ${cpus()[0]?.model.trim()}, Node ${process.version}`,
              signal,
              progress: output.progress,
              onStep: (step) => {
                output.progress.advance(step.step);
                if (step.step === step.steps) output.progress.end(`loss ${step.loss.toFixed(3)}`);
                if (step.validationLoss === null) return;
                output.emit({ event: 'step', ...step });
                output.say(
                  `step ${step.step}: loss ${step.loss.toFixed(3)}, held out ${step.validationLoss.toFixed(3)}`,
                );
              },
            });
            output.say(`policy ${policy.hash}: ${out}`);
            output.say(`Next: npx optima train ${names[0]} --model ${out}`);
            output.emit({
              event: 'summary',
              scenarios: scenarios.map(({ name }) => name),
              steps,
              seed: options.seed,
              seconds: Math.round(process.uptime()),
              out,
              policy: policy.hash,
            });
            policy.dispose();
          };
          await cleaningUp(warm, () => host?.stop(), first.remove);
        }),
      ),
    );
}
