// Starts the tensor engine, loads the checkpoint a command asks for, and starts workers where it can use them.
import { availableParallelism } from 'node:os';
import { OptimaError } from '../domain/errors.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { OpenedModel } from '../models/open.ts';
import type { Engine } from '../tensor/index.ts';
import type { PolicyHost } from '../workers/index.ts';
import { type Backend, defaultModel } from './options.ts';
import type { Output } from './output.ts';

/** By default no more than these: each takes 0.4 GB for an engine of its own. */
const mostWorkers = 4;

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

/** What computes in a command, and where policies will: workers are a second of work each, and are started last. */
export interface Engines {
  readonly engine: Engine;
  /** Starts the workers, or without any gives what computes on this thread, with a policy that is there. The caller stops it. */
  readonly startHost: (known: LlamaPolicy) => Promise<PolicyHost>;
}

/**
 * As `openEngine`, with workers where the backend computes on one core: each has the same engine with one thread, and so
 * has the main thread. They are started when all input has been found good.
 */
export async function openEngines(
  { backend, workers: wanted }: ModelOptions,
  output: Output,
): Promise<Engines> {
  const { startEngine } = await import('../tensor/index.ts');
  const cores = availableParallelism();
  const most = wanted ?? (cores === 1 ? 0 : Math.min(cores, mostWorkers));
  const engine = await startEngine({ backend, ...(most > 0 && { blasThreads: 1 }) });
  const count = engine.backend === 'tensorflow' ? 0 : most;
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
  const startHost = async (known: LlamaPolicy) => {
    const { inProcessHost, Workers } = await import('../workers/index.ts');
    return count === 0 ? inProcessHost([known]) : Workers.start(count, { backend: engine.backend });
  };
  return { engine, startHost };
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
