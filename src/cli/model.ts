// Starts the tensor engine, and workers where a command can use them, and loads the checkpoint it asks for.
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
  return startEngines({ ...options, workers: 0 }, output).then(({ engine }) => engine);
}

/**
 * As `openEngine`, with workers beside it where the backend computes on one core: each has the same engine with one
 * thread, and so has the main thread. The caller stops them.
 */
export async function startEngines(
  { backend, workers: wanted }: ModelOptions,
  output: Output,
): Promise<{ engine: Engine; workers: Workers | undefined }> {
  const { startEngine } = await import('../tensor/index.ts');
  const cores = availableParallelism();
  const count = wanted ?? (cores === 1 ? 0 : Math.min(cores, mostWorkers));
  const engine = await startEngine({ backend, ...(count > 0 && { blasThreads: 1 }) });
  const useful = count > 0 && engine.backend !== 'tensorflow';
  const { Workers } = await import('../workers/index.ts');
  const workers = useful ? await Workers.start(count, { backend: engine.backend }) : undefined;
  const beside = workers === undefined ? '' : `; ${count} ${count === 1 ? 'worker' : 'workers'}`;
  const description = `${engine.description}${beside}`;
  output.say(`engine: ${description}`);
  output.emit({
    event: 'engine',
    backend: engine.backend,
    machineCode: engine.machineCode,
    blas: engine.blas,
    workers: workers?.count ?? 0,
    description,
  });
  return { engine, workers };
}

/** Loads the checkpoint; rejects with `checkpoint.missing`, `checkpoint.invalid` or `tokenizer.mismatch`. */
export async function openModel({ model = defaultModel }: ModelOptions): Promise<LlamaPolicy> {
  const { loadPolicy } = await import('../models/llama/index.ts');
  return loadPolicy(model);
}
