// `optima plan <scenario> --model <folder>`: what a run will hold, need and take, before anything is allocated.
import type { Command } from 'commander';
import { locateModel } from '../run/locate.ts';
import { planIterations, planRun } from '../run/plan.ts';
import type { Resources } from '../run/resources.ts';
import { withoutTraining } from '../scenario/types.ts';
import { interruptible } from './interrupt.ts';
import { foldersIn, frozenNames, openEngines } from './model.ts';
import {
  backendOption,
  collect,
  jsonOption,
  judgeOption,
  modelOption,
  policyOption,
  seedOption,
  workersOption,
} from './options.ts';
import { counted, formatTable, type Output, spanOf, withOutput } from './output.ts';
import { sayPlan } from './say-plan.ts';
import { askedRecipe, policiesOption, type TrainOptions } from './train.ts';
import { openScenario } from './watch.ts';

type PlanOptions = Pick<
  TrainOptions,
  | 'recipe'
  | 'preset'
  | 'policies'
  | 'seed'
  | 'set'
  | 'model'
  | 'policy'
  | 'judge'
  | 'backend'
  | 'workers'
  | 'json'
>;

export function addPlan(program: Command): void {
  program
    .command('plan')
    .argument('<scenario>', 'name or file of a scenario')
    .description('say what a training would need: memory, tokens, hours; reads no weights')
    .option('--recipe <name>', 'as `optima train` takes it')
    .option('--preset <name>', 'as `optima train` takes it')
    .addOption(policiesOption())
    .addOption(seedOption())
    .option('--set <key=value>', 'change one number of the recipe; may be repeated', collect)
    .addOption(modelOption())
    .addOption(policyOption())
    .addOption(judgeOption())
    .addOption(backendOption())
    .addOption(workersOption())
    .addOption(jsonOption())
    .action((name: string, options: PlanOptions) =>
      withOutput(options, (output) =>
        interruptible(output, (signal) => planNamed(name, options, output, signal)),
      ),
    );
}

async function planNamed(
  name: string,
  options: PlanOptions,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const { recipe } = askedRecipe(options);
  const folder = await locateModel(options.model, '--model');
  const { scenario: whole } = await openScenario(name, signal);
  const names = await frozenNames(whole, options);
  const scenario = withoutTraining(whole, Object.keys(names.partners));
  const { undertakingOf } = await import('../run/undertaking.ts');
  const { gigabytes, millions, requireRoomForRun } = await import('../run/resources.ts');
  const { machineBytes } = await import('../models/llama/size.ts');
  const { workers } = await openEngines(options, output);
  const asked = await undertakingOf(folder, scenario, recipe, foldersIn(names));
  const undertaking = { ...asked, workers };
  sayPlan(planRun(recipe, scenario), planIterations(recipe, scenario), recipe, output);
  const { resources, risk } = requireRoomForRun(undertaking);
  const { config, lengths } = undertaking;
  output.say(
    `model: ${millions(resources.parameters)}, ${config.num_hidden_layers} layers of width ${config.hidden_size}, vocabulary ${config.vocab_size}; weights ${gigabytes(resources.weightBytes)}${resources.frozenBytes === 0 ? '' : ', once for all threads'}, keys and values ${gigabytes(1024 * resources.keyValueBytesPerToken)} for 1,024 tokens`,
  );
  if (lengths.context > config.max_position_embeddings) {
    output.remark(
      `note: a dialogue may come to ${lengths.context} tokens, and the model reads ${config.max_position_embeddings}: what does not fit fails.`,
    );
  }
  await sayMemory(resources, workers, output);
  if (risk !== null) output.remark(`note: ${risk}`);
  const { measureSpeed } = await import('../run/calibrate.ts');
  const speed = await measureSpeed(config, () => performance.now());
  const threads = Math.max(1, workers);
  const seconds = {
    reading: resources.operations.reading / speed.reading / threads,
    training: resources.operations.training / speed.training / threads,
  };
  const { generated, trained } = resources.tokens;
  const inTotal = seconds.reading + seconds.training;
  output.say(
    `tokens, at most: ${thousands(generated)} generated, ${thousands(trained)} trained on; ${((resources.operations.reading + resources.operations.training) / 1e12).toPrecision(3)} TFLOP`,
  );
  output.say(
    `time, at most: ${spanOf(inTotal)}, of which training ${spanOf(seconds.training)}; as one layer of this shape computes now, ${rate(speed.reading)} reading and ${rate(speed.training)} training a thread`,
  );
  output.emit({
    event: 'resources',
    ...resources,
    workers,
    machineBytes: machineBytes(),
    lengths,
    speed,
    seconds,
  });
}

async function sayMemory({ parts, peakBytes }: Resources, workers: number, output: Output): Promise<void> {
  const { gigabytes } = await import('../run/resources.ts');
  const { machineBytes } = await import('../models/llama/size.ts');
  const head = ['memory', 'main thread', ...(workers > 0 ? ['each worker'] : [])];
  const rows = parts.map(({ part, main, worker }) => [
    part,
    gigabytes(main),
    ...(workers > 0 ? [gigabytes(worker)] : []),
  ]);
  output.say(`\n${formatTable([head, ...rows])}`);
  const who = workers === 0 ? 'without workers' : `with ${counted(workers, 'worker')}`;
  output.say(`peak: about ${gigabytes(peakBytes)} of this machine's ${gigabytes(machineBytes())}, ${who}`);
}

const thousands = (count: number): string =>
  count < 1e6 ? `${Math.round(count / 1e3)} k` : `${(count / 1e6).toFixed(1)} M`;
const rate = (operations: number): string => `${(operations / 1e9).toPrecision(2)} GFLOP/s`;
