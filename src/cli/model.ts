// Starts the tensor engine, loads the checkpoint a command asks for, and starts workers where it can use them.
import fs from 'node:fs';
import path from 'node:path';
import { nearest, OptimaError } from '../domain/errors.ts';
import type { OpenedModel } from '../models/open.ts';
import { type Engines, openEngines as startEngines } from '../run/engines.ts';
import type { FrozenModel } from '../run/frozen.ts';
import { withoutJudge } from '../scenario/score.ts';
import type { Scenario } from '../scenario/types.ts';
import { finalFolder, incomplete, readManifest } from '../store/manifest.ts';
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
  // A module that writes replies.
  if (/\.[cm]?[jt]s$/.test(model)) return model;
  const folder = fs.existsSync(path.join(model, 'manifest.json')) ? finalPolicyOf(model) : model;
  if (fs.existsSync(path.join(folder, 'config.json'))) return folder;
  const within = fs.statSync(folder).isDirectory() ? fs.readdirSync(folder) : [];
  const roles = within.filter((name) => fs.existsSync(path.join(folder, name, 'config.json')));
  if (roles.length > 0) {
    throw new OptimaError('usage', `${option} ${model}: each role has a policy of its own there.`, {
      hint: `Name them all: ${roles.map((role) => `--policy ${role}=${path.join(folder, role)}`).join(' ')}`,
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

/** Models beside the one that `--model` names: who plays roles and is not trained, and whom the metric asks. */
export interface FrozenOptions {
  readonly policy?: readonly string[];
  readonly judge?: string;
}

/** What `--policy` and `--judge` name. Throws `usage` where the scenario has no such role, or its judge is missing or too much. */
export function frozenNames(scenario: Scenario, { policy = [], judge }: FrozenOptions) {
  const known = Object.keys(scenario.roles);
  const partners: Record<string, string> = {};
  for (const text of policy) {
    const [, role, model] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (role === undefined || model === undefined) {
      throw new OptimaError('usage', `--policy ${text}: must be <role>=<model>.`);
    }
    if (!known.includes(role)) {
      const guess = nearest(role, known);
      throw new OptimaError(
        'usage',
        `--policy ${text}: "${scenario.name}" has the roles ${known.join(', ')}.`,
        {
          hint: guess && `Did you mean "${guess}"?`,
        },
      );
    }
    if (Object.hasOwn(partners, role))
      throw new OptimaError('usage', `--policy ${text}: ${role} has one already.`);
    partners[role] = model;
  }
  if (scenario.judge === undefined && judge !== undefined) {
    throw new OptimaError('usage', `--judge ${judge}: "${scenario.name}" asks no judge model.`);
  }
  if (scenario.judge !== undefined && judge === undefined) throw withoutJudge(scenario);
  const located = Object.entries(partners).map(([role, model]) => [
    role,
    locateModel(model, `--policy ${role}`),
  ]);
  return {
    partners: Object.fromEntries(located) as Readonly<Record<string, string>>,
    judge: judge === undefined ? undefined : locateModel(judge, '--judge'),
  };
}

/** A model that is not trained, and where it was found. */
export interface OpenedFrozen {
  readonly folder: string;
  readonly model: FrozenModel;
}

/** Opens a model to be asked; its weights are let go again, as a host loads them where it computes. */
export async function openFrozen(name: string): Promise<OpenedFrozen> {
  const { generates, trains, dispose } = await openModel({ model: name });
  dispose();
  if (trains === null) return { folder: path.resolve(name), model: generates };
  return { folder: trains.folder, model: { folder: trains.folder, hash: trains.policy.hash } };
}

/** All partners of roles that are not trained. */
export async function openPartners(
  names: Readonly<Record<string, string>>,
): Promise<Readonly<Record<string, OpenedFrozen>>> {
  const opened: Record<string, OpenedFrozen> = {};
  for (const [role, name] of Object.entries(names)) opened[role] = await openFrozen(name);
  return opened;
}

/** What a summary says of them: their hashes, where there are any. */
export function frozenHashes(partners: Readonly<Record<string, OpenedFrozen>>, judge: OpenedFrozen | null) {
  const hashes = Object.entries(partners).map(([role, { model }]) => [role, model.hash] as const);
  return {
    ...(hashes.length > 0 && { partners: Object.fromEntries(hashes) }),
    ...(judge !== null && { judge: judge.model.hash }),
  };
}

/** As `openModel`, for what needs weights; rejects with `usage` where the model has none. */
export async function openPolicy(options: ModelOptions): Promise<NonNullable<OpenedModel['trains']>> {
  const { trains } = await openModel(options);
  if (trains !== null) return trains;
  throw new OptimaError('usage', `--model ${options.model}: has no weights here that could be trained.`, {
    hint: 'Give a checkpoint folder.',
  });
}
