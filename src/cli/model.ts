// Starts the tensor engine, loads the checkpoint a command asks for, and starts workers where it can use them.
import { availableParallelism } from 'node:os';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { Engine } from '../tensor/index.ts';
import type { Workers } from '../workers/index.ts';
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

/** What computes in a command, and the workers beside it, still to be started: a second of work for each. */
export interface Engines {
  readonly engine: Engine;
  /** None where they are of no use. The caller stops them. */
  readonly startWorkers: () => Promise<Workers | undefined>;
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
  const startWorkers = async () => {
    if (count === 0) return undefined;
    const { Workers } = await import('../workers/index.ts');
    return Workers.start(count, { backend: engine.backend });
  };
  return { engine, startWorkers };
}

/** Loads the checkpoint; rejects with `checkpoint.missing`, `checkpoint.invalid` or `tokenizer.mismatch`. */
export async function openModel({ model = defaultModel }: ModelOptions): Promise<LlamaPolicy> {
  const { loadPolicy } = await import('../models/llama/index.ts');
  return loadPolicy(model);
}
