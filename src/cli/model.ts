// Starts the tensor engine, loads the checkpoint a command asks for, and starts workers where it can use them.
import { OptimaError } from '../domain/errors.ts';
import type { OpenedModel } from '../models/open.ts';
import { type Engines, openEngines as startEngines } from '../run/engines.ts';
import type { Engine } from '../tensor/index.ts';
import { type Backend, defaultModel } from './options.ts';
import type { Output } from './output.ts';

export interface ModelOptions {
  /** Worker threads; 0: compute on the main thread. Default: one for each core, if there are several. */
  readonly workers?: number;
  readonly backend?: Backend;
  readonly model?: string;
}

/** Starts the engine and says in one line which it is; TF.js is loaded here and not before. */
export async function openEngine(options: ModelOptions, output: Output): Promise<Engine> {
  return openEngines({ ...options, workers: 0 }, output).then(({ engine }) => engine);
}

/** As `openEngine`, with what starts workers (src/run/engines.ts). */
export async function openEngines(options: ModelOptions, output: Output): Promise<Engines> {
  const engines = await startEngines(options);
  const { engine, workers: count } = engines;
  const beside = count === 0 ? '' : `; ${count} ${count === 1 ? 'worker' : 'workers'}`;
  const description = `${engine.description}${beside}`;
  output.say(`engine: ${description}`);
  output.emit({
    event: 'engine',
    backend: engine.backend,
    machineCode: engine.machineCode,
    blas: engine.blas,
    workers: count,
    description,
  });
  return engines;
}

/** Opens what `--model` names; TF.js is loaded here and not before. */
export async function openModel({ model = defaultModel }: ModelOptions): Promise<OpenedModel> {
  const open = await import('../models/open.ts');
  return open.openModel(model);
}

/** As `openModel`, for what needs weights; rejects with `usage` where the model has none. */
export async function openPolicy(options: ModelOptions): Promise<NonNullable<OpenedModel['trains']>> {
  const { trains } = await openModel(options);
  if (trains !== null) return trains;
  throw new OptimaError('usage', `--model ${options.model}: has no weights here that could be trained.`, {
    hint: 'Give a checkpoint folder.',
  });
}
