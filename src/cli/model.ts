// Starts the tensor engine, loads the checkpoint a command asks for, and starts workers where it can use them.
import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import type { OpenedModel } from '../models/open.ts';
import { finalFolder, incomplete, readManifest } from '../store/manifest.ts';
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

/** What the shipped model is called where there is no folder of that name. */
export const shippedModel = 'models/tiny';

/**
 * The checkpoint folder that `--model` names: a checkpoint, a run for the policy it ended with, or the shipped model, by default and
 * as `models/tiny`. Loads nothing, so that a wrong name shows before the engine starts. Throws `checkpoint.missing`, and for a run
 * without one policy to its name `run.missing` or `usage`.
 */
export function locateModel(model: string | undefined, option = '--model'): string {
  if (model === undefined) return defaultModel;
  if (!fs.existsSync(model)) {
    if (path.normalize(model) === path.normalize(shippedModel)) return defaultModel;
    throw new OptimaError('checkpoint.missing', `${option} ${model}: no such checkpoint folder.`, {
      hint: `Give a folder with config.json, model.safetensors and tokenizer.json, a run's folder, or ${shippedModel} for the model that ships.`,
    });
  }
  const folder = fs.existsSync(path.join(model, 'manifest.json')) ? finalPolicyOf(model) : model;
  if (fs.existsSync(path.join(folder, 'config.json'))) return folder;
  const within = fs.statSync(folder).isDirectory() ? fs.readdirSync(folder) : [];
  const roles = within.filter((name) => fs.existsSync(path.join(folder, name, 'config.json')));
  if (roles.length > 0) {
    throw new OptimaError('usage', `${option} ${model}: each role has a policy of its own there.`, {
      hint: `Give one of them: ${roles.map((role) => path.join(folder, role)).join(', ')}.`,
    });
  }
  throw new OptimaError('checkpoint.missing', `${option} ${model}: is no checkpoint: it has no config.json.`);
}

function finalPolicyOf(run: string): string {
  const manifest = readManifest(run);
  const folder = finalFolder(run);
  if (fs.existsSync(folder)) return folder;
  throw incomplete(run, manifest, 'no final policy');
}

/** Opens what `--model` names; TF.js is loaded here and not before. Rejects as `locateModel` throws. */
export async function openModel({ model }: ModelOptions): Promise<OpenedModel> {
  const folder = locateModel(model);
  const open = await import('../models/open.ts');
  return open.openModel(folder);
}

/** As `openModel`, for what needs weights; rejects with `usage` where the model has none. */
export async function openPolicy(options: ModelOptions): Promise<NonNullable<OpenedModel['trains']>> {
  const { trains } = await openModel(options);
  if (trains !== null) return trains;
  throw new OptimaError('usage', `--model ${options.model}: has no weights here that could be trained.`, {
    hint: 'Give a checkpoint folder.',
  });
}
