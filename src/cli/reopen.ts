// Opens what a run was made with: its scenario, which must be as it was, its recipe, and the models that it asks and does not train.
import fs from 'node:fs';
import { OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import type { LlamaPolicy } from '../models/llama/index.ts';
import { type Recipe, recipeSchema } from '../recipe/schema.ts';
import { hashFile, packageVersion } from '../run/create-run.ts';
import { type OpenedFrozen, openFrozen } from '../run/frozen.ts';
import { type LoadedScenario, pathOf, trustTypes } from '../scenario/load.ts';
import type { Manifest } from '../store/manifest.ts';
import { openPolicy } from './model.ts';
import { openScenario } from './watch.ts';

export interface ReopenedRun {
  readonly loaded: LoadedScenario;
  readonly recipe: Recipe;
}

/**
 * The scenario and the recipe of a run. Rejects with `usage` for a run that was begun in code, `run.diverged` where the scenario's file was changed,
 * `run.version` for a recipe of other keys, and as `loadScenario` does.
 */
export async function reopenRun(
  folder: string,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<ReopenedRun> {
  if (manifest.scenario.file === '') {
    throw new OptimaError(
      'usage',
      `${folder} was begun in code, and its scenario has no file to load it from.`,
      { hint: "Begin it with the scenario's name or file, and it can be resumed." },
    );
  }
  const { file, name, hash } = manifest.scenario;
  if (fs.existsSync(file) && hashFile(file) !== hash) {
    throw new OptimaError('run.diverged', `${file} was changed since the run began.`, {
      hint: 'Restore it, or start a new run.',
    });
  }
  if (manifest.version === packageVersion()) trustTypes(file);
  const loaded = await openScenario(pathOf(file, name), signal);
  return { loaded, recipe: recipeOf(manifest, folder) };
}

/** The recipe of a run; throws `run.version` when this version of the program knows another set of keys. */
export function recipeOf({ recipe, version }: Manifest, folder: string): Recipe {
  const result = recipeSchema.safeParse(recipe);
  if (result.success) return result.data;
  const { path: key, message } = result.error.issues[0]!;
  throw new OptimaError(
    'run.version',
    `${folder}: its recipe, of version ${version}, has ${key.join('.') || 'a key'} that this version does not take: ${message}.`,
    {
      hint: 'Continue it with the version that wrote it, or start a new run.',
    },
  );
}

const changed = (folder: string, what: string) =>
  new OptimaError('run.diverged', `${folder} was changed since the run began.`, {
    hint: `Restore the ${what}, or start a new run.`,
  });

/** What a run began with; rejects with `run.diverged` where it was changed. */
export async function reopenBase({ base: { folder, hash } }: Manifest): Promise<LlamaPolicy> {
  const { policy } = await openPolicy({ model: folder });
  if (policy.hash === hash) return policy;
  policy.dispose();
  throw changed(folder, 'base checkpoint');
}

/** Who plays the roles that a run does not train, and its judge; rejects with `run.diverged` where one was changed. */
export async function reopenFrozen({ partners: named = {}, judge }: Manifest) {
  const reopen = async (what: string, one: { readonly folder: string; readonly hash: PolicyHash }) => {
    const opened = await openFrozen(one.folder);
    if (opened.model.hash === one.hash) return opened;
    throw changed(one.folder, what);
  };
  const partners: Record<string, OpenedFrozen> = {};
  for (const [role, one] of Object.entries(named)) partners[role] = await reopen(`policy of ${role}`, one);
  return { partners, judge: judge === undefined ? null : await reopen('judge', judge) };
}
