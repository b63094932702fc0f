// A checkpoint folder in the Hugging Face layout: read whole or refused, written whole or not at all.
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { exists, howToConvert, readJsonFile } from '../files.ts';
import type { ChatTokenizer } from '../tokenizer/index.ts';
import { type LlamaConfig, parseLlamaConfig, toConfigJson } from './config.ts';
import { writeSafetensors } from './safetensors.ts';
import { StoredWeights } from './stored-weights.ts';
import type { NamedArray } from './weights.ts';

export interface Checkpoint {
  readonly config: LlamaConfig;
  /** By Hugging Face name, in the order of the forward pass. */
  readonly weights: ReadonlyMap<string, NamedArray>;
  /** The folder's generation_config.json, as it stands; null where there is none. */
  readonly generation: GenerationConfig | null;
}

/** A checkpoint whose weights are still in their files; its owner closes these. */
export interface OpenCheckpoint extends Omit<Checkpoint, 'weights'> {
  readonly weights: StoredWeights;
}

/** Of a generation_config.json only the ids that end a message are read; the rest is kept for other tools. */
const generationSchema = z.looseObject({
  eos_token_id: z.union([z.int().nonnegative(), z.array(z.int().nonnegative())]).nullish(),
});
export type GenerationConfig = Readonly<z.output<typeof generationSchema>>;

/**
 * Reads `config.json` and opens `model.safetensors` (or the shards that `model.safetensors.index.json` lists).
 * Throws `checkpoint.missing` when folder or file is absent, and `checkpoint.invalid` when a file is damaged,
 * a weight is missing, unknown or of the wrong shape, or the architecture is none of those that are computed.
 */
export async function openCheckpoint(folder: string): Promise<OpenCheckpoint> {
  const config = await readConfig(folder);
  const generation = await readGenerationConfig(join(folder, 'generation_config.json'), config);
  return { config, weights: await StoredWeights.open(folder, config), generation };
}

/** The architecture alone: reads `config.json` and no weights. Throws as `openCheckpoint` does. */
export async function readConfig(folder: string): Promise<LlamaConfig> {
  if (!(await exists(folder))) {
    throw new OptimaError('checkpoint.missing', `${folder}: no such checkpoint folder.`, {
      hint: 'Give the path of a folder with config.json, model.safetensors and tokenizer.json.',
    });
  }
  if (!(await stat(folder)).isDirectory()) {
    throw new OptimaError('checkpoint.invalid', `${folder}: a file, and a checkpoint is a folder.`, {
      hint: howToConvert(folder) ?? 'Give the folder that it is in.',
    });
  }
  const path = join(folder, 'config.json');
  return parseLlamaConfig(await readJsonFile(path), path);
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

/** Writes a checkpoint's folder, whole or not at all: see `writeWhole`. */
export const writeCheckpoint = (folder: string, ...what: CheckpointParts): Promise<void> =>
  writeWhole(folder, (at) => writeCheckpointFiles(at, ...what));

type CheckpointParts = readonly [checkpoint: Checkpoint, tokenizerFiles: ChatTokenizer['files']];

/** Writes a checkpoint's files into a folder that is there. */
export async function writeCheckpointFiles(
  at: string,
  ...[{ config, weights, generation }, tokenizerFiles]: CheckpointParts
): Promise<void> {
  await writeJson(join(at, 'config.json'), toConfigJson(config));
  if (generation !== null) await writeJson(join(at, 'generation_config.json'), generation);
  await writeJson(join(at, 'tokenizer.json'), tokenizerFiles.tokenizerJson);
  await writeJson(join(at, 'tokenizer_config.json'), tokenizerFiles.tokenizerConfig);
  await writeSafetensors(join(at, 'model.safetensors'), weights);
}

/**
 * Writes a folder: first beside its place, then renamed into it, so that a reader never sees half of it. An older one of the same
 * path is replaced. Throws `io.write`, or what `write` found to be wrong, and leaves what was there untouched.
 */
export async function writeWhole<Result>(
  folder: string,
  write: (staging: string) => Promise<Result>,
): Promise<Result> {
  const target = resolve(folder);
  const beside = (suffix: string) => join(dirname(target), `.${basename(target)}.${suffix}`);
  const staging = beside('partial');
  try {
    await rm(staging, { recursive: true, force: true });
    // A recursive mkdir does not return where the system refuses folders with ENOENT, as /proc does.
    if (!(await exists(dirname(target)))) await mkdir(dirname(target), { recursive: true });
    await mkdir(staging);
    const result = await write(staging);
    await replaceFolder(staging, target, beside('replaced'));
    return result;
  } catch (error) {
    // Settled either way: the failure above is the one to report.
    await Promise.allSettled([rm(staging, { recursive: true, force: true })]);
    if (error instanceof OptimaError) throw error;
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
