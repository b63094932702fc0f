// The weights of a checkpoint's folder where they lie, in one safetensors file or in shards: checked by their headers alone,
// and then brought to the engine one after the other, so that no more than one copy is ever in memory.
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { OptimaError } from '../../domain/errors.ts';
import { createHash16, type Hash16 } from '../../domain/hash.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import { canFreeze, type FrozenFormat, GrowingMatrix, growVariable, isFrozen } from '../../tensor/index.ts';
import { exists, folderHint, howToConvert, readJsonFile } from '../files.ts';
import type { LlamaConfig } from './config.ts';
import { createHashThread } from './hash-thread.ts';
import type { HeldWeights, Weight } from './held-weights.ts';
import { SafetensorsFile } from './safetensors.ts';
import { requireRoomForWeights } from './size.ts';
import { hashTensor, isShape, startPolicyHash, weightShapes } from './weights.ts';

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
   * Brings the weights to the engine and names the policy that they are with `frame` around them: see `startPolicyHash`. Where nothing
   * of them will be trained (`frozen`) their matrices go outside its memory, if it can read them there. Throws `model.failed`
   * when they do not fit, before any is read.
   */
  async load(frame: string, { frozen = false } = {}): Promise<HeldWeights> {
    const formats = frozen && canFreeze() ? this.matrixFormats() : new Map<string, FrozenFormat>();
    requireRoomForWeights(this.#config, this.#folder, formats);
    const shapes = weightShapes(this.#config);
    const bytes = [...shapes.values()].reduce(
      (sum, shape) => sum + 4 * shape.reduce((size, n) => size * n, 1),
      0,
    );
    const hash = createHashThread(bytes);
    const loaded = new Map<string, Weight>();
    // What lm_head repeats, where it does.
    const twice = this.#config.tie_word_embeddings && this.#fileOf.has(headName);
    const embedding = twice ? createHash16() : null;
    try {
      startPolicyHash(this.#config, frame, hash);
      const names = [...shapes.keys()].sort();
      for (const [i, name] of names.entries()) {
        const shape = shapes.get(name)!;
        hashTensor(hash, name, shape);
        const also = name === embeddingName ? embedding : null;
        const hashes = also === null ? [hash] : [hash, also];
        loaded.set(name, await this.#loadOne(name, shape, formats.get(name), hashes, names[i + 1]));
      }
      if (embedding !== null) await this.#requireSameHead(embedding.digest());
      const held = new Map([...shapes.keys()].map((name) => [name, loaded.get(name)!]));
      return { held, hash: hash.digest() as PolicyHash };
    } catch (error) {
      for (const weight of loaded.values()) if (!isFrozen(weight)) weight.dispose();
      hash.stop();
      throw error;
    }
  }

  /** The hash that `load` would give: reads everything, keeps nothing, and needs no engine. */
  async hash(frame: string): Promise<PolicyHash> {
    const hash = startPolicyHash(this.#config, frame);
    const shapes = weightShapes(this.#config);
    for (const name of [...shapes.keys()].sort()) {
      hashTensor(hash, name, shapes.get(name)!);
      await this.#fileOf.get(name)!.read(name, (piece) => void hash.update(bytesOf(piece)));
    }
    return hash.digest() as PolicyHash;
  }

  /** How matrices are frozen: as narrow as they are stored. */
  matrixFormats(): Map<string, FrozenFormat> {
    const formats = new Map<string, FrozenFormat>();
    for (const [name, shape] of weightShapes(this.#config)) {
      if (shape.length !== 2) continue;
      const isNarrow = this.#fileOf.get(name)!.dtypeOf(name) === 'BF16';
      formats.set(name, isNarrow ? 'bfloat16' : 'float32');
    }
    return formats;
  }

  async close(): Promise<void> {
    for (const file of this.#files) await file.close();
  }

  /** `next` is loaded after it. */
  async #loadOne(
    name: string,
    shape: readonly number[],
    format: FrozenFormat | undefined,
    hashes: readonly Hash16[],
    next: string | undefined,
  ): Promise<Weight> {
    const growing =
      format === undefined ? growVariable(shape) : new GrowingMatrix(shape as [number, number], format);
    const file = this.#fileOf.get(name)!;
    const isNext = next !== undefined && this.#fileOf.get(next) === file;
    try {
      const take = (piece: Float32Array) => {
        for (const hash of hashes) hash.update(bytesOf(piece));
        growing.add(piece);
      };
      await file.read(name, take, isNext ? next : undefined);
      return growing.finish();
    } catch (error) {
      growing.dispose();
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

/** Whether a folder has weights at all. */
export const hasWeights = async (folder: string): Promise<boolean> =>
  (await exists(join(folder, single))) || (await exists(join(folder, `${single}.index.json`)));

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
