// A checkpoint folder in the Hugging Face layout: read whole or refused, written whole or not at all.
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { readJsonFile } from '../files.ts';
import type { ChatTokenizer } from '../tokenizer/index.ts';
import { type LlamaConfig, parseLlamaConfig, toConfigJson } from './config.ts';
import { readSafetensors, writeSafetensors } from './safetensors.ts';
import { type NamedArray, weightShapes } from './weights.ts';

export interface Checkpoint {
  readonly config: LlamaConfig;
  /** By Hugging Face name, in the order of the forward pass. */
  readonly weights: Map<string, NamedArray>;
  /** The folder's generation_config.json, as it stands; null where there is none. */
  readonly generation: GenerationConfig | null;
}

/** Of a generation_config.json only the ids that end a message are read; the rest is kept for other tools. */
const generationSchema = z.looseObject({
  eos_token_id: z.union([z.int().nonnegative(), z.array(z.int().nonnegative())]).nullish(),
});
export type GenerationConfig = Readonly<z.output<typeof generationSchema>>;

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });

/**
 * Reads `config.json` and `model.safetensors` (or the shards that `model.safetensors.index.json` lists).
 * Throws `checkpoint.missing` when folder or file is absent, and `checkpoint.invalid` when a file is damaged,
 * a weight is missing, unknown or of the wrong shape, or the architecture is not plain Llama.
 */
export async function readCheckpoint(folder: string): Promise<Checkpoint> {
  if (!(await exists(folder))) {
    throw new OptimaError('checkpoint.missing', `${folder}: no such checkpoint folder.`, {
      hint: 'Give the path of a folder with config.json, model.safetensors and tokenizer.json.',
    });
  }
  const configPath = join(folder, 'config.json');
  const config = parseLlamaConfig(await readJsonFile(configPath), configPath);
  const found = new Map<string, NamedArray>();
  for (const path of await listWeightFiles(folder)) {
    for (const [name, array] of await readSafetensors(path)) found.set(name, array);
  }
  const generation = await readGenerationConfig(join(folder, 'generation_config.json'), config);
  return { config, weights: selectWeights(config, found, folder), generation };
}

async function readGenerationConfig(path: string, config: LlamaConfig): Promise<GenerationConfig | null> {
  if (!(await exists(path))) return null;
  const result = generationSchema.safeParse(await readJsonFile(path));
  const ids = result.success ? [result.data.eos_token_id ?? []].flat() : [];
  if (result.success && ids.every((id) => id < config.vocab_size)) return result.data;
  const problem = result.success
    ? `eos_token_id ${ids} is not below vocab_size ${config.vocab_size}`
    : 'eos_token_id is not a token id or a list of them';
  throw new OptimaError('checkpoint.invalid', `${path}: ${problem}.`);
}

/** The weights that the architecture asks for, checked for shape; refuses what it would have to ignore. */
function selectWeights(
  config: LlamaConfig,
  found: Map<string, NamedArray>,
  folder: string,
): Map<string, NamedArray> {
  const weights = new Map<string, NamedArray>();
  for (const [name, shape] of weightShapes(config)) {
    const array = found.get(name);
    if (array === undefined) {
      throw new OptimaError('checkpoint.invalid', `${folder}: tensor ${name} is missing.`);
    }
    if (!isOfShape(array, shape)) {
      throw new OptimaError(
        'checkpoint.invalid',
        `${folder}: tensor ${name} has shape [${array.shape}], but config.json asks for [${shape}].`,
      );
    }
    weights.set(name, array);
  }
  for (const name of found.keys()) {
    // Older exports repeat what config.json already says: tied heads and the rotary frequencies.
    const redundant = name === 'lm_head.weight' || name.endsWith('.rotary_emb.inv_freq');
    if (!weights.has(name) && !redundant) {
      throw new OptimaError(
        'checkpoint.invalid',
        `${folder}: tensor ${name} is not part of a Llama decoder.`,
      );
    }
  }
  const head = config.tie_word_embeddings ? found.get('lm_head.weight') : undefined;
  const embedding = weights.get('model.embed_tokens.weight')!;
  if (head !== undefined && !isSame(head, embedding)) {
    throw new OptimaError(
      'checkpoint.invalid',
      `${folder}: config.json says that lm_head.weight is the embedding table, and the file holds another one.`,
      { hint: 'Say "tie_word_embeddings": false in config.json, or leave lm_head.weight out.' },
    );
  }
  return weights;
}

export const isOfShape = ({ shape }: NamedArray, asked: readonly number[]): boolean =>
  shape.length === asked.length && shape.every((n, axis) => n === asked[axis]);

const isSame = (one: NamedArray, other: NamedArray): boolean =>
  one.values.length === other.values.length &&
  one.values.every((value, index) => Object.is(value, other.values[index]));

async function listWeightFiles(folder: string): Promise<string[]> {
  const indexPath = join(folder, 'model.safetensors.index.json');
  if (!(await exists(indexPath))) return [join(folder, 'model.safetensors')];
  const index = indexSchema.safeParse(await readJsonFile(indexPath));
  if (!index.success) {
    throw new OptimaError('checkpoint.invalid', `${indexPath}: weight_map is not a map from tensor to file.`);
  }
  const files = [...new Set(Object.values(index.data.weight_map))];
  const elsewhere = files.find((file) => basename(file) !== file);
  if (elsewhere !== undefined) {
    throw new OptimaError(
      'checkpoint.invalid',
      `${indexPath}: the shard ${JSON.stringify(elsewhere)} is not a file of this folder.`,
    );
  }
  return files.map((file) => join(folder, file));
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw new OptimaError('io.read', `Cannot read ${path}: ${messageOf(error)}.`, { cause: error });
  }
}

/** Writes a checkpoint's folder, whole or not at all: see `writeWhole`. */
export function writeCheckpoint(
  folder: string,
  { config, weights, generation }: Checkpoint,
  tokenizerFiles: ChatTokenizer['files'],
): Promise<void> {
  return writeWhole(folder, async (at) => {
    await writeJson(join(at, 'config.json'), toConfigJson(config));
    if (generation !== null) await writeJson(join(at, 'generation_config.json'), generation);
    await writeJson(join(at, 'tokenizer.json'), tokenizerFiles.tokenizerJson);
    await writeJson(join(at, 'tokenizer_config.json'), tokenizerFiles.tokenizerConfig);
    await writeSafetensors(join(at, 'model.safetensors'), weights);
  });
}

/**
 * Writes a folder: first beside its place, then renamed into it, so that a reader never sees half of it. An older one of the same
 * path is replaced. Throws `io.write`, and leaves what was there untouched.
 */
export async function writeWhole(folder: string, write: (staging: string) => Promise<void>): Promise<void> {
  const target = resolve(folder);
  const beside = (suffix: string) => join(dirname(target), `.${basename(target)}.${suffix}`);
  const staging = beside('partial');
  try {
    await rm(staging, { recursive: true, force: true });
    // A recursive mkdir does not return where the system refuses folders with ENOENT, as /proc does.
    if (!(await exists(dirname(target)))) await mkdir(dirname(target), { recursive: true });
    await mkdir(staging);
    await write(staging);
    await replaceFolder(staging, target, beside('replaced'));
  } catch (error) {
    // Settled either way: the failure above is the one to report.
    await Promise.allSettled([rm(staging, { recursive: true, force: true })]);
    throw new OptimaError('io.write', `Cannot write the checkpoint ${folder}: ${messageOf(error)}.`, {
      cause: error,
      hint: 'Check that the folder can be written and that the disk has room.',
    });
  }
}

/** rename() cannot replace a folder that has files in it, so the old one steps aside first. */
async function replaceFolder(staging: string, target: string, aside: string): Promise<void> {
  if (!(await exists(target))) return rename(staging, target);
  await rm(aside, { recursive: true, force: true });
  await rename(target, aside);
  try {
    await rename(staging, target);
  } catch (error) {
    await rename(aside, target);
    throw error;
  }
  await rm(aside, { recursive: true });
}

/** Writes a file of JSON, and flushes it to the disk. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  const handle = await open(path, 'w');
  try {
    await handle.writeFile(`${JSON.stringify(value, null, 2)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
