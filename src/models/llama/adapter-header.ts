// What an adapter's folder says of it, in the layout of Hugging Face's PEFT: adapter_config.json, and beside it optima.json, which
// says whose weights it adapts. Loads no engine.
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { OptimaError } from '../../domain/errors.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import type { LoraConfig } from '../../domain/lora.ts';
import { readJsonFile } from '../files.ts';

export const adapterConfigFile = 'adapter_config.json';
export const adapterBaseFile = 'optima.json';

/** Fields of adapter_config.json that are read, and what they must be where only one value is computed. */
const configSchema = z.looseObject({
  peft_type: z.literal('LORA'),
  r: z.int().positive(),
  lora_alpha: z.number().positive(),
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().nullish(),
  bias: z.literal('none').nullish(),
  // Others replace the base's weights, which the folder does not have.
  init_lora_weights: z.union([z.boolean(), z.enum(['gaussian', 'orthogonal', 'eva'])]).nullish(),
  base_model_name_or_path: z.string().nullish(),
});

/** Fields that change nothing of what an adapter computes once it is there. */
const harmless = new Set([
  ...Object.keys(configSchema.shape),
  ...['target_modules', 'exclude_modules', 'task_type', 'inference_mode', 'auto_mapping', 'peft_version'],
  ...['revision', 'megatron_core', 'qalora_group_size', 'runtime_config', 'loftq_config', 'eva_config'],
]);

const ownSchema = z.object({ base: z.string() });

/** What an adapter's folder says of it, before the base is known. */
export interface AdapterHeader {
  readonly folder: string;
  readonly config: Omit<LoraConfig, 'targets'>;
  /** Where the base was when the adapter was written: a folder, or a name of no use here. */
  readonly baseFolder: string | null;
  /** The base's hash; null where another program wrote the adapter. */
  readonly baseHash: PolicyHash | null;
}

/** Whether a folder holds an adapter. */
export const isAdapterFolder = (folder: string): boolean => fs.existsSync(join(folder, adapterConfigFile));

/** Reads what a folder says of its adapter. Throws `checkpoint.missing` and, for what is not computed here, `checkpoint.invalid`. */
export async function readAdapterHeader(folder: string): Promise<AdapterHeader> {
  const path = join(folder, adapterConfigFile);
  const refuse = (problem: string): never => {
    throw new OptimaError('checkpoint.invalid', `${path}: ${problem}.`, {
      hint: 'Only plain LoRA adapters are read: one rank for all matrices, no biases, no other saved modules.',
    });
  };
  const result = configSchema.safeParse(await readJsonFile(path));
  if (!result.success) {
    const issue = result.error.issues[0]!;
    return refuse(`field ${issue.path.join('.') || 'top'}: ${issue.message}`);
  }
  for (const [field, value] of Object.entries(result.data)) {
    const isUnset = !value || (typeof value === 'object' && Object.keys(value).length === 0);
    if (!harmless.has(field) && !isUnset) refuse(`${field} ${JSON.stringify(value)} is not supported`);
  }
  const ownPath = join(folder, adapterBaseFile);
  const own = fs.existsSync(ownPath) ? ownSchema.safeParse(await readJsonFile(ownPath)) : null;
  if (own?.success === false) {
    throw new OptimaError('checkpoint.invalid', `${ownPath}: field base is not the hash of a model.`);
  }
  const { r: rank, lora_alpha: alpha, lora_dropout: dropout, use_rslora } = result.data;
  return {
    folder,
    config: { rank, alpha, dropout, ...(use_rslora && { rankStabilized: true }) },
    baseFolder: result.data.base_model_name_or_path ?? null,
    baseHash: (own?.data.base ?? null) as PolicyHash | null,
  };
}

/**
 * The folder of an adapter's base as it says itself: as it stands, or within the adapter's own folder. Throws
 * `checkpoint.missing` where there is none, and `checkpoint.invalid` where that is an adapter, too.
 */
export function baseFolderOf({ folder, baseFolder }: AdapterHeader): string {
  const places = baseFolder === null ? [] : [resolve(folder, baseFolder), resolve(baseFolder)];
  const found = places.find((place) => fs.existsSync(join(place, 'config.json')));
  if (found !== undefined) return found;
  const adapted = places.find(isAdapterFolder);
  if (adapted !== undefined) {
    throw new OptimaError(
      'checkpoint.invalid',
      `${folder}: the base of this adapter, ${baseFolder}, is an adapter itself.`,
      {
        hint: `Merge that into its base, and name what comes of it: npx optima merge ${adapted} --out <folder>`,
      },
    );
  }
  throw new OptimaError(
    'checkpoint.missing',
    `${folder}: the base of this adapter, ${baseFolder ?? 'which it does not name'}, is not there.`,
    { hint: `Say in its ${adapterConfigFile} where it is: "base_model_name_or_path": "<folder>".` },
  );
}

/**
 * The folder with config and tokenizer of a model: its own, or of an adapter its base's, which is `base` where that is there, else
 * what `baseFolderOf` finds.
 */
export async function modelFolderOf(source: Source): Promise<string> {
  const { folder, base } = source;
  if (!isAdapterFolder(folder)) return folder;
  if (base !== undefined && fs.existsSync(base.folder)) return modelFolderOf(base);
  return baseFolderOf(await readAdapterHeader(folder));
}

/** A model's folder, and where what it adapts is. */
interface Source {
  readonly folder: string;
  readonly base?: Source;
}
