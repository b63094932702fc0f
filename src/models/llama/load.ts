// How a policy comes to be: new, or from a folder with a checkpoint or an adapter.
import { existsSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { OptimaError } from '../../domain/errors.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import type { LoraConfig } from '../../domain/lora.ts';
import type { Rng } from '../../domain/rng.ts';
import { type ChatTokenizer, loadTokenizer } from '../tokenizer/index.ts';
import { hashAdapted } from './adapter.ts';
import { readAdapter } from './adapter-files.ts';
import { baseFolderOf, isAdapterFolder, readAdapterHeader } from './adapter-header.ts';
import { openCheckpoint, readConfig } from './checkpoint.ts';
import { type LlamaConfigInput, parseLlamaConfig } from './config.ts';
import { type SharedWeights, takeShared } from './held-weights.ts';
import { type LlamaOptions, LlamaPolicy, requireTokenizerFits } from './policy.ts';
import { frameOf, initialWeights, startPolicyHash } from './weights.ts';

/**
 * A policy with random weights. Where the config names no end-of-sequence or padding id, the tokenizer's are
 * written into it, so that other tools stop where this one does. Throws `checkpoint.invalid` for a config
 * that is not a Llama decoder's and `tokenizer.mismatch` for a tokenizer that does not fit.
 */
export function createPolicy(
  config: LlamaConfigInput,
  tokenizer: ChatTokenizer,
  rng: Rng,
  options: LlamaOptions = {},
): LlamaPolicy {
  const parsed = parseLlamaConfig(config);
  requireTokenizerFits(tokenizer, parsed);
  const complete = {
    ...parsed,
    eos_token_id: parsed.eos_token_id ?? tokenizer.endOfTurnId,
    pad_token_id: parsed.pad_token_id ?? tokenizer.padId,
  };
  return new LlamaPolicy(complete, initialWeights(complete, rng), tokenizer, options);
}

export interface LoadOptions extends Omit<LlamaOptions, 'generation' | 'folder'> {
  /** Replaces the folder's own. */
  readonly tokenizer?: ChatTokenizer;
  /** What the weights must be. Default: what the folder is named by where it is a checkpoint of a run. */
  readonly hash?: PolicyHash;
  /** Whether nothing will train the weights: see `StoredWeights.load`. What an adapter adapts never is. */
  readonly frozen?: boolean;
  /** The weights themselves, where another thread has them frozen; of an adapter's folder its base's. Its frame must be the folder's. */
  readonly shared?: SharedWeights | undefined;
  /** Whose weights an adapter of the folder is to read; it must live on. Default: a copy from where the adapter says that it is. */
  readonly base?: LlamaPolicy | undefined;
  /** How an adapter is trained from here on, in place of what its folder says: dropout, recomputation. */
  readonly training?: Pick<LoraConfig, 'dropout' | 'recompute'> | undefined;
}

/**
 * The policy of a Hugging Face folder, or of a PEFT adapter's. Throws `checkpoint.missing`, `checkpoint.invalid`, which weights of
 * another hash and an adapter of another base are too, or `tokenizer.mismatch`.
 */
export async function loadPolicy(folder: string, options: LoadOptions = {}): Promise<LlamaPolicy> {
  const { hash = hashNamedBy(folder) } = options;
  const policy = await (isAdapterFolder(folder) ? loadAdapted : loadWhole)(folder, options);
  if (hash === undefined || policy.hash === hash) return policy;
  policy.dispose();
  throw new OptimaError('checkpoint.invalid', `${folder}: it has the hash ${policy.hash}, not ${hash}.`, {
    hint: `The files were changed since they were written.${options.hash === undefined ? ' To change some, take a copy out of the run.' : ''}`,
  });
}

/** The hash of what `loadPolicy` loads of a folder, without loading it: no engine need run. Rejects as that does. */
export async function hashOfFolder(folder: string): Promise<PolicyHash> {
  if (isAdapterFolder(folder)) {
    const header = await readAdapterHeader(folder);
    const base = baseFolderOf(header);
    return hashAdapted(await hashOfFolder(base), await readAdapter(header, await readConfig(base)));
  }
  const { weights, generation } = await openCheckpoint(folder);
  try {
    return await weights.hash(frameOf((await loadTokenizer(folder)).hash, generation));
  } finally {
    await weights.close();
  }
}

/** The hash that a run's checkpoint is named by, a link being where it leads; undefined for other folders. */
function hashNamedBy(folder: string): PolicyHash | undefined {
  const real = existsSync(folder) ? realpathSync(folder) : folder;
  const isOfRun = basename(dirname(real)) === 'checkpoints' && existsSync(join(real, '../../manifest.json'));
  return isOfRun && /^[0-9a-f]{16}$/.test(basename(real)) ? (basename(real) as PolicyHash) : undefined;
}

async function loadWhole(
  folder: string,
  { tokenizer, frozen = false, shared, ...options }: LoadOptions,
): Promise<LlamaPolicy> {
  const { config, weights, generation } = await openCheckpoint(folder);
  try {
    const own = tokenizer ?? (await loadTokenizer(folder));
    requireSameEnds(folder, own, [config.eos_token_id ?? [], generation?.eos_token_id ?? []].flat());
    requireTokenizerFits(own, config, folder);
    const frame = frameOf(own.hash, generation);
    if (shared !== undefined && startPolicyHash(config, frame).digest() !== shared.frameHash) {
      throw new OptimaError(
        'checkpoint.invalid',
        `${folder}: its config, generation config or tokenizer is not that of ${shared.hash}, whose weights are shared.`,
        { hint: 'The files were changed since they were opened. Start again.' },
      );
    }
    const held = shared === undefined ? await weights.load(frame, { frozen }) : takeShared(shared);
    return new LlamaPolicy(config, held, own, {
      ...options,
      generation,
      folder: resolve(folder),
    });
  } finally {
    await weights.close();
  }
}

async function loadAdapted(
  folder: string,
  { base: given, hash: _, training, ...options }: LoadOptions,
): Promise<LlamaPolicy> {
  const header = await readAdapterHeader(folder);
  const base = given?.base ?? (await loadWhole(baseFolderOf(header), { ...options, frozen: true }));
  try {
    if (header.baseHash !== null && header.baseHash !== base.hash) {
      throw new OptimaError(
        'checkpoint.invalid',
        `${folder}: an adapter of the base ${header.baseHash}, not of ${base.folder ?? 'this one'}, which is ${base.hash}.`,
        { hint: 'An adapter says something only with the base that it was trained on.' },
      );
    }
    const { config, factors } = await readAdapter(header, base.config);
    return base.withAdapter(
      { config: { ...config, ...training }, factors },
      { ownsBase: given === undefined },
    );
  } catch (error) {
    if (given === undefined) base.dispose();
    throw error;
  }
}

/** Throws `tokenizer.mismatch` for another model's tokenizer, as is seen by what ends the model's turns. */
function requireSameEnds(
  folder: string,
  { endOfTurnId, controlIds }: ChatTokenizer,
  ends: readonly number[],
): void {
  if (ends.length === 0 || ends.some((id) => id === endOfTurnId || controlIds.includes(id))) return;
  throw new OptimaError(
    'tokenizer.mismatch',
    `${folder}: the model ends its turns with token ${ends.join(' or ')}, which is no special token of its tokenizer.`,
    { hint: 'Use the tokenizer.json that belongs to this checkpoint.' },
  );
}
