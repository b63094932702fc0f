// Where the weights are that a name stands for: a checkpoint, a run for the policy it ended with, or the model that ships.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import { howToConvert } from '../models/files.ts';
import { isAdapterFolder } from '../models/llama/adapter-header.ts';
import { RunReader } from '../reading/index.ts';
import type { Scenario } from '../scenario/types.ts';
import { checkpointFolder, incomplete, policyFolder, readManifest } from '../store/manifest.ts';
import type { RunFolder } from '../store/run-folder.ts';
import type { PolicySource } from '../workers/host.ts';

/** What the shipped model is called where there is no folder of that name. */
export const shippedModel = 'models/tiny';
/** The checkpoint that comes with the package. */
export const shippedFolder = fileURLToPath(new URL('../../models/tiny', import.meta.url));

/** One checkpoint folder for every role, or one for each by its name. */
export type Located = string | Readonly<Record<string, string>>;

/**
 * The checkpoints that `model` names, by default those of the shipped model; `option` is how it was given. Loads nothing, so that a
 * wrong name shows before the engine starts. Rejects with `checkpoint.missing`, `run.missing` for a run without a final policy,
 * `run.corrupt` for one whose log is damaged, and `run.diverged` for one that ended with its base, where that was changed.
 */
export async function locateTeam(model: string | undefined, option: string): Promise<Located> {
  if (model === undefined) return shippedFolder;
  if (!fs.existsSync(model)) {
    if (path.normalize(model) === path.normalize(shippedModel)) return shippedFolder;
    throw new OptimaError('checkpoint.missing', `${option} ${model}: no such checkpoint folder.`, {
      hint: `Give a folder with config.json, model.safetensors and tokenizer.json, a run's folder, or ${shippedModel} for the model that ships.`,
    });
  }
  // A module that writes replies.
  if (/\.[cm]?[jt]s$/.test(model)) return model;
  if (fs.existsSync(path.join(model, 'manifest.json'))) return finalPolicyOf(model);
  const isCheckpoint = (at: string) => fs.existsSync(path.join(at, 'config.json')) || isAdapterFolder(at);
  if (isCheckpoint(model)) return model;
  const within = fs.statSync(model).isDirectory() ? fs.readdirSync(model) : [];
  const roles = within.filter((name) => isCheckpoint(path.join(model, name)));
  if (roles.length > 0) return Object.fromEntries(roles.map((role) => [role, path.join(model, role)]));
  throw new OptimaError(
    'checkpoint.missing',
    `${option} ${model}: is no checkpoint: it has neither config.json nor adapter_config.json.`,
    {
      hint: [model, ...within].map(howToConvert).find((hint) => hint !== undefined),
    },
  );
}

/** As `locateTeam`, for what takes one checkpoint; rejects with `usage` for a run with a policy for each role. */
export async function locateModel(model: string | undefined, option: string): Promise<string> {
  const located = await locateTeam(model, option);
  if (typeof located === 'string') return located;
  throw new OptimaError(
    'usage',
    `${option} ${model}: it holds several models, as of a team whose roles have one each.`,
    {
      hint: `Give one of them: ${Object.values(located).join(', ')}`,
    },
  );
}

/**
 * The checkpoint that speaks for every role, and those that speak for one each, where a run has them: for all but the roles in `played`,
 * which others play. Throws `usage` where there is none for a role.
 */
export function foldersFor(
  { name, roles }: Scenario,
  located: Located,
  played: readonly string[] = [],
): readonly [folder: string, byRole: Readonly<Record<string, string>>] {
  if (typeof located === 'string') return [located, {}];
  const own = Object.keys(roles).filter((role) => !played.includes(role));
  const missing = own.find((role) => !Object.hasOwn(located, role));
  const [first] = Object.values(located);
  if (missing === undefined) return [first!, Object.fromEntries(own.map((role) => [role, located[role]!]))];
  const known = Object.keys(located).join(', ');
  throw new OptimaError(
    'usage',
    `"${name}" has a role ${missing}, and ${path.dirname(first!)} has policies for ${known}.`,
  );
}

/** Where a policy of a run is found; an adapter that the run trained shares its weights with the run's base. */
export function sourceIn(
  { path: run, manifest }: Pick<RunFolder, 'path' | 'manifest'>,
  hash: PolicyHash,
): PolicySource {
  const folder = policyFolder(run, manifest, hash);
  const isTrained = folder === checkpointFolder(run, hash);
  return { hash, folder, ...(isTrained && isAdapterFolder(folder) && { base: manifest.base }) };
}

/** By the run's log: a link may lead anywhere. A checkpoint of the run is held against its name when it is loaded, any other here. */
async function finalPolicyOf(run: string): Promise<Located> {
  const manifest = readManifest(run);
  const reader = RunReader.open(run);
  reader.close();
  const { policy } = reader;
  if (policy === null) throw incomplete(run, manifest, 'no final policy');
  const folders = Object.entries(policy).map(
    ([role, hash]) => [role, policyFolder(run, manifest, hash)] as const,
  );
  const others = new Map(Object.values(policy).map((hash) => [policyFolder(run, manifest, hash), hash]));
  for (const [folder, hash] of others)
    if (folder !== checkpointFolder(run, hash)) await requireUnchanged(run, folder, hash);
  return new Set(Object.values(policy)).size === 1 ? folders[0]![1] : Object.fromEntries(folders);
}

async function requireUnchanged(run: string, folder: string, hash: PolicyHash): Promise<void> {
  const { hashOfModel } = await import('../models/open.ts');
  if ((await hashOfModel(folder)) === hash) return;
  throw new OptimaError('run.diverged', `${folder} was changed since ${run} ended with it.`, {
    hint: 'Restore it, or name a checkpoint.',
  });
}
