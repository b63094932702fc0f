// Opens what `--model` names: a checkpoint folder, which can do all that a model can, or a module that writes replies; a server
// will generate and score.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { hash16 } from '../domain/hash.ts';
import type { GenerativeModel, ScoringModel } from '../domain/model.ts';
import { hashOfFolder, type LlamaPolicy, type LoadOptions, loadPolicy } from './llama/index.ts';
import { type ScriptedModelOptions, scriptedModel } from './scripted/index.ts';

/** A model by what it can do; null for what it cannot. */
export interface OpenedModel {
  readonly generates: GenerativeModel;
  readonly scores: ScoringModel | null;
  /** The weights, to be trained or to compute elsewhere. */
  readonly trains: { readonly policy: LlamaPolicy; readonly folder: string } | null;
  dispose(): void;
}

/** How a model is opened: see `LoadOptions`. By default its weights are frozen: what is trained is a copy of them, or an adapter. */
export type OpenOptions = Pick<LoadOptions, 'training' | 'frozen'>;

/** As `loadPolicy`, also of how an adapter is trained on; rejects with `checkpoint.missing`, `checkpoint.invalid` or `tokenizer.mismatch`. */
export async function openModel(
  model: string,
  { training, frozen = true }: OpenOptions = {},
): Promise<OpenedModel> {
  const folder = path.resolve(model);
  if (isScript(folder)) {
    return { generates: await openScript(folder), scores: null, trains: null, dispose: () => {} };
  }
  const policy = await loadPolicy(model, { training, frozen });
  return { generates: policy, scores: policy, trains: { policy, folder }, dispose: () => policy.dispose() };
}

const isScript = (model: string) => /\.[cm]?[jt]s$/.test(model);

/** The hash that a model has as `openModel` opens it; needs no engine. Rejects as that does. */
export async function hashOfModel(model: string): Promise<string> {
  return isScript(model) ? (await openScript(path.resolve(model))).hash : hashOfFolder(model);
}

/** A model that says what the default export of a module replies to a request; it is named by the hash of the file. */
async function openScript(file: string): Promise<GenerativeModel> {
  if (!fs.existsSync(file)) throw new OptimaError('checkpoint.missing', `${file}: no such file.`);
  let module: { default?: ScriptedModelOptions['reply'] };
  try {
    module = await import(pathToFileURL(file).href);
  } catch (error) {
    throw new OptimaError('checkpoint.invalid', `${file}: cannot be loaded: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (typeof module.default !== 'function') {
    throw new OptimaError('checkpoint.invalid', `${file}: has no function as its default export.`, {
      hint: 'A model is written as `export default ({ messages }) => reply`.',
    });
  }
  return scriptedModel({ reply: module.default, hash: `script-${hash16(fs.readFileSync(file))}` });
}
