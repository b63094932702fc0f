// The weights of a checkpoint's folder where they lie, in one safetensors file or in shards: checked by their headers alone,
// and then brought to the engine one after the other, so that no more than one copy is ever in memory.
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { OptimaError } from '../../domain/errors.ts';
import { createHash16, type Hash16 } from '../../domain/hash.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import { growVariable, type tf } from '../../tensor/index.ts';
import { exists, folderHint, howToConvert, readJsonFile } from '../files.ts';
import type { LlamaConfig } from './config.ts';
import { SafetensorsFile } from './safetensors.ts';
import { requireRoomForWeights } from './size.ts';
import { hashTensor, isShape, startPolicyHash, weightShapes } from './weights.ts';

/** Weights on the engine, by Hugging Face name in the order of the forward pass, and the name of a policy of them. */
export interface LoadedWeights {
  readonly variables: ReadonlyMap<string, tf.Variable>;
  readonly hash: PolicyHash;
}

const single = 'model.safetensors';
const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) });
const [headName, embeddingName] = ['lm_head.weight', 'model.embed_tokens.weight'];

/** Open files. Their owner closes them. */
export class StoredWeights {
  readonly #folder: string;
  readonly #config: LlamaConfig;
  readonly #files: readonly SafetensorsFile[];
  /** By tensor. */
  readonly #fileOf = new Map<string, SafetensorsFile>();

  private constructor(folder: string, config: LlamaConfig, files: readonly SafetensorsFile[]) {
    this.#folder = folder;
    this.#config = config;
    this.#files = files;
    for (const file of files) for (const name of file.shapes.keys()) this.#fileOf.set(name, file);
  }

  /**
   * Opens the files of a folder. Throws `checkpoint.missing` when one is absent, and `checkpoint.invalid` when one is damaged or
   * a weight is missing, unknown or of another shape than the architecture asks for.
   */
  static async open(folder: string, config: LlamaConfig): Promise<StoredWeights> {
    const files: SafetensorsFile[] = [];
    try {
      for (const path of await listWeightFiles(folder)) files.push(await SafetensorsFile.open(path));
      const weights = new StoredWeights(folder, config, files);
      weights.#check();
      return weights;
    } catch (error) {
      for (const file of files) await file.close();
      throw error;
    }
  }

  /**
   * Brings the weights to the engine and names the policy that they are with `frame` around them: see `startPolicyHash`. Throws
   * `model.failed` when they do not fit there, before any is read.
   */
  async load(frame: string): Promise<LoadedWeights> {
    requireRoomForWeights(this.#config, this.#folder);
    const shapes = weightShapes(this.#config);
    const hash = startPolicyHash(this.#config, frame);
    const loaded = new Map<string, tf.Variable>();
    // What lm_head repeats, where it does.
    const twice = this.#config.tie_word_embeddings && this.#fileOf.has(headName);
    const embedding = twice ? createHash16() : null;
    try {
      for (const name of [...shapes.keys()].sort()) {
        const shape = shapes.get(name)!;
        hashTensor(hash, name, shape);
        const also = name === embeddingName ? embedding : null;
        loaded.set(name, await this.#loadOne(name, shape, also === null ? [hash] : [hash, also]));
      }
      if (embedding !== null) await this.#requireSameHead(embedding.digest());
    } catch (error) {
      for (const variable of loaded.values()) variable.dispose();
      throw error;
    }
    const variables = new Map([...shapes.keys()].map((name) => [name, loaded.get(name)!]));
    return { variables, hash: hash.digest() as PolicyHash };
  }

  async close(): Promise<void> {
    for (const file of this.#files) await file.close();
  }

  async #loadOne(name: string, shape: readonly number[], hashes: readonly Hash16[]): Promise<tf.Variable> {
    const variable = growVariable(shape);
    try {
      await this.#fileOf.get(name)!.read(name, (piece) => {
        for (const hash of hashes) hash.update(bytesOf(piece));
        variable.add(piece);
      });
      return variable.finish();
    } catch (error) {
      variable.dispose();
      throw error;
    }
  }

  async #requireSameHead(embedding: string): Promise<void> {
    const hash = createHash16();
    await this.#fileOf.get(headName)!.read(headName, (piece) => void hash.update(bytesOf(piece)));
    if (hash.digest() === embedding) return;
    this.#refuse(
      `config.json says that ${headName} is the embedding table, and the file holds another one`,
      'Say "tie_word_embeddings": false in config.json, or leave lm_head.weight out.',
    );
  }

  /** Whether there is what the architecture asks for; what would have to be ignored is refused. */
  #check(): void {
    const shapes = weightShapes(this.#config);
    for (const [name, asked] of shapes) {
      const shape = this.#fileOf.get(name)?.shapes.get(name);
      if (shape === undefined) this.#refuse(`tensor ${name} is missing`);
      else if (!isShape(shape, asked)) {
        this.#refuse(`tensor ${name} has shape [${shape}], but config.json asks for [${asked}]`);
      }
    }
    for (const name of this.#fileOf.keys()) {
      // Older exports repeat what config.json already says: tied heads and the rotary frequencies.
      const redundant = name === headName || name.endsWith('.rotary_emb.inv_freq');
      if (shapes.has(name) || redundant) continue;
      this.#refuse(`tensor ${name} is not part of a decoder of the kind ${this.#config.model_type}`);
    }
  }

  #refuse(problem: string, hint?: string): void {
    throw new OptimaError('checkpoint.invalid', `${this.#folder}: ${problem}.`, { hint });
  }
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

async function listWeightFiles(folder: string): Promise<string[]> {
  const indexPath = join(folder, `${single}.index.json`);
  if (!(await exists(indexPath))) {
    if (!(await exists(join(folder, single)))) throw await missingWeights(folder);
    return [join(folder, single)];
  }
  const index = indexSchema.safeParse(await readJsonFile(indexPath));
  if (!index.success) {
    throw new OptimaError('checkpoint.invalid', `${indexPath}: weight_map is not a map from tensor to file.`);
  }
  const files = [...new Set(Object.values(index.data.weight_map))];
  for (const file of files) {
    if (basename(file) !== file) {
      throw new OptimaError(
        'checkpoint.invalid',
        `${indexPath}: the shard ${JSON.stringify(file)} is not a file of this folder.`,
      );
    }
    if (!(await exists(join(folder, file)))) {
      throw new OptimaError(
        'checkpoint.missing',
        `${join(folder, file)}: no such file, one of ${files.length} shards.`,
        {
          hint: `Copy or download it again: ${basename(indexPath)} says that tensors are in it.`,
        },
      );
    }
  }
  return files.map((file) => join(folder, file));
}

/** What to say of a folder without safetensors. */
async function missingWeights(folder: string): Promise<OptimaError> {
  const foreign = (await readdir(folder)).find((name) => howToConvert(name) !== undefined);
  const found = foreign === undefined ? '' : `, and ${foreign} is not read`;
  return new OptimaError('checkpoint.missing', `${join(folder, single)}: no such file${found}.`, {
    hint: foreign === undefined ? folderHint : howToConvert(foreign),
  });
}
