// An adapter's folder in the layout of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors, and beside them
// optima.json, which says whose weights it adapts.
import fs from 'node:fs';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { OptimaError } from '../../domain/errors.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import { type AdaptableMatrix, adaptableMatrices, type LoraConfig } from '../../domain/lora.ts';
import { readJsonFile } from '../files.ts';
import { type Adapter, factorShapes } from './adapter.ts';
import { writeJson, writeWhole } from './checkpoint.ts';
import type { LlamaConfig } from './config.ts';
import { readSafetensors, writeSafetensors } from './safetensors.ts';
import { isShape, type NamedArray } from './weights.ts';

const configName = 'adapter_config.json';
const weightsName = 'adapter_model.safetensors';
const ownName = 'optima.json';
/** What PEFT puts before a module's path. */
const prefix = 'base_model.model.';

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
export const isAdapterFolder = (folder: string): boolean => fs.existsSync(join(folder, configName));

/** Reads what a folder says of its adapter. Throws `checkpoint.missing` and, for what is not computed here, `checkpoint.invalid`. */
export async function readAdapterHeader(folder: string): Promise<AdapterHeader> {
  const path = join(folder, configName);
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
  const ownPath = join(folder, ownName);
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
 * `checkpoint.missing` where there is none.
 */
export function baseFolderOf({ folder, baseFolder }: AdapterHeader): string {
  const places = baseFolder === null ? [] : [resolve(folder, baseFolder), resolve(baseFolder)];
  const found = places.find((place) => fs.existsSync(join(place, 'config.json')));
  if (found !== undefined) return found;
  throw new OptimaError(
    'checkpoint.missing',
    `${folder}: the base of this adapter, ${baseFolder ?? 'which it does not name'}, is not there.`,
    { hint: `Say in its ${configName} where it is: "base_model_name_or_path": "<folder>".` },
  );
}

/** The folder with config and tokenizer of a model: its own, or of an adapter its base's. */
export async function modelFolderOf(folder: string): Promise<string> {
  return isAdapterFolder(folder) ? baseFolderOf(await readAdapterHeader(folder)) : folder;
}

/**
 * Reads an adapter of a decoder. Throws `checkpoint.missing`, and `checkpoint.invalid` where a factor is damaged, missing, unknown
 * or of another shape than the decoder asks for.
 */
export async function readAdapter({ folder, config }: AdapterHeader, decoder: LlamaConfig): Promise<Adapter> {
  const path = join(folder, weightsName);
  const found = await readSafetensors(path);
  const refuse = (problem: string): never => {
    throw new OptimaError('checkpoint.invalid', `${path}: ${problem}.`, {
      hint: 'Is it an adapter of another base?',
    });
  };
  const names = new Set([...found.keys()].map((name) => name.split('.').at(-3)));
  const targets = adaptableMatrices.filter((target) => names.has(target)) as AdaptableMatrix[];
  const lora = { ...config, targets };
  const factors = new Map<string, NamedArray>();
  for (const [name, shape] of factorShapes(decoder, lora)) {
    const array = found.get(`${prefix}${name}`) ?? refuse(`tensor ${prefix}${name} is missing`);
    if (!isShape(array.shape, shape)) {
      refuse(`tensor ${prefix}${name} has shape [${array.shape}], but the base asks for [${shape}]`);
    }
    factors.set(name, array);
  }
  const stray = [...found.keys()].find((name) => !factors.has(name.slice(prefix.length)));
  if (stray !== undefined) refuse(`tensor ${stray} is no factor of a matrix of the base`);
  if (factors.size === 0) refuse('it adapts nothing');
  return { config: lora, factors };
}

/** Writes an adapter's folder, whole or not at all: see `writeWhole`. */
export function writeAdapter(
  folder: string,
  { config, factors }: Adapter,
  base: { readonly folder: string | null; readonly hash: PolicyHash },
): Promise<void> {
  return writeWhole(folder, async (at) => {
    await writeJson(join(at, configName), {
      peft_type: 'LORA',
      task_type: 'CAUSAL_LM',
      base_model_name_or_path: base.folder,
      r: config.rank,
      lora_alpha: config.alpha,
      lora_dropout: config.dropout,
      use_rslora: config.rankStabilized ?? false,
      target_modules: config.targets,
      bias: 'none',
      fan_in_fan_out: false,
      inference_mode: true,
      init_lora_weights: true,
    });
    await writeJson(join(at, ownName), { base: base.hash });
    const tensors = [...factors].map(([name, array]) => [`${prefix}${name}`, array] as const);
    await writeSafetensors(join(at, weightsName), new Map(tensors));
  });
}
