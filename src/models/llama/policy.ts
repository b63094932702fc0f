// The in-process Llama behind the `TrainablePolicy` interface: messages in, tokens, log-probabilities and weights out.
import { OptimaError } from '../../domain/errors.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import {
  type CallOptions,
  type ChatMessage,
  type Generation,
  type GenerationRequest,
  inOwnSession,
  type ModelSession,
  type ScoreRequest,
  type ScoreResult,
  type SessionOptions,
  type SessionStatistics,
  type TrainablePolicy,
  type TrainingSequence,
  takeAll,
} from '../../domain/model.ts';
import type { Rng } from '../../domain/rng.ts';
import { type BlockDecoder, type TreeLayout, tf } from '../../tensor/index.ts';
import { type ChatTokenizer, loadTokenizer } from '../tokenizer/index.ts';
import { createBlockDecoder } from './block-decoder.ts';
import { type GenerationConfig, readCheckpoint, writeCheckpoint } from './checkpoint.ts';
import { type LlamaConfig, type LlamaConfigInput, parseLlamaConfig } from './config.ts';
import { computeHidden, type Decoder, project } from './forward.ts';
import { DecodeLoop } from './generate.ts';
import { Memory, type PrefixStatistics } from './memory.ts';
import { RotaryTable } from './rotary.ts';
import { scoreTokens } from './score.ts';
import { arrangeWeights, hashPolicy, initialWeights, type NamedArray } from './weights.ts';

export interface LlamaOptions {
  /** Most requests that decode together. Default 128; throughput hardly grows beyond. */
  readonly maxRows?: number;
  /** Most tokens of one pass over prompts or given texts; a longer one has a pass of its own. Default 1024. */
  readonly tokenBudget?: number;
  /** Most bytes of keys and values that a session holds; 0: nothing is shared. Default 256 MiB. */
  readonly memoryBytes?: number;
  /** What a checkpoint's generation_config.json says: more ids that end a message, and what is kept for other tools. */
  readonly generation?: GenerationConfig | null;
}

/** A policy that remembers, with the tokens it had to read so far. */
export interface LlamaSession extends ModelSession {
  readonly statistics: PrefixStatistics;
  measure(): Promise<SessionStatistics>;
}

/** A Llama-family decoder with its tokenizer. Made by `createPolicy` or `loadPolicy`; the owner disposes it. */
export class LlamaPolicy implements TrainablePolicy {
  readonly config: LlamaConfig;
  readonly tokenizer: ChatTokenizer;
  /** The weights by Hugging Face name. Whoever assigns to them calls `refreshHash` when done. */
  readonly parameters: ReadonlyMap<string, tf.Variable>;
  readonly #decoder: Decoder;
  readonly #maxRows: number;
  readonly #tokenBudget: number;
  readonly #memoryBytes: number;
  readonly #generation: GenerationConfig | null;
  readonly #blocks: BlockDecoder;
  /** What of the hash is not the weights'. */
  readonly #frame: string;
  #hash: PolicyHash;

  /** Throws `tokenizer.mismatch` when the tokenizer knows more tokens than the embedding table has rows. */
  constructor(
    config: LlamaConfig,
    weights: ReadonlyMap<string, NamedArray>,
    tokenizer: ChatTokenizer,
    { maxRows = 128, tokenBudget = 1024, memoryBytes = 2 ** 28, generation = null }: LlamaOptions = {},
  ) {
    if (!(maxRows >= 1)) throw new RangeError(`LlamaPolicy: maxRows ${maxRows} is not 1 or more.`);
    requireFit(tokenizer, config);
    this.config = config;
    this.tokenizer = tokenizer;
    this.#maxRows = maxRows;
    this.#tokenBudget = tokenBudget;
    this.#memoryBytes = memoryBytes;
    this.#generation = generation;
    this.#frame = JSON.stringify([tokenizer.hash, generation]);
    this.#hash = hashPolicy(config, weights, this.#frame);
    this.parameters = new Map(
      [...weights].map(([name, { shape, values }]) => [name, createVariable(shape, values)]),
    );
    this.#decoder = {
      config,
      weights: arrangeWeights(config, this.parameters),
      rotary: new RotaryTable(config),
    };
    this.#blocks = createBlockDecoder(this.#decoder);
  }

  /** Content hash, with the weights as of construction or of the last `refreshHash` or `save`. */
  get hash(): PolicyHash {
    return this.#hash;
  }

  /** Recomputes `hash` from the weights as they are now. */
  refreshHash(): PolicyHash {
    this.#hash = hashPolicy(this.config, this.#download(), this.#frame);
    return this.#hash;
  }

  generate(requests: readonly GenerationRequest[], options?: CallOptions): Promise<readonly Generation[]> {
    return inOwnSession(this, (session) => session.generate(requests, options));
  }

  score(requests: readonly ScoreRequest[], options?: CallOptions): Promise<readonly ScoreResult[]> {
    return inOwnSession(this, (session) => session.score(requests, options));
  }

  openSession({ memoryBytes = this.#memoryBytes }: SessionOptions = {}): LlamaSession {
    const memory = new Memory(this.#blocks, memoryBytes);
    const stopIds = new Set([
      this.tokenizer.endOfTurnId,
      ...[this.config.eos_token_id ?? []].flat(),
      ...[this.#generation?.eos_token_id ?? []].flat(),
    ]);
    const loop = new DecodeLoop({
      stopIds,
      neverIds: this.tokenizer.controlIds.filter((id) => !stopIds.has(id)),
      maxRows: this.#maxRows,
      context: this.config.max_position_embeddings,
      tokenBudget: this.#tokenBudget,
      memory,
    });
    const hash = this.#hash;
    const requireSameWeights = () => {
      if (this.#hash !== hash) throw new Error(`The session of policy ${hash} outlived its weights.`);
    };
    return {
      hash,
      generate: async (requests, options) => {
        requireSameWeights();
        return this.#generate(requests, loop, options);
      },
      score: async (requests, options) => {
        requireSameWeights();
        return this.#score(requests, memory, options);
      },
      get statistics() {
        return memory.statistics;
      },
      measure: async () => {
        const { steps, rows, parts } = loop.fill;
        return { ...memory.statistics, fill: { steps, rows, parts } };
      },
      close: () => {
        loop.close();
        memory.forget();
      },
    };
  }

  async #generate(
    requests: readonly GenerationRequest[],
    loop: DecodeLoop,
    { signal }: CallOptions = {},
  ): Promise<readonly Generation[]> {
    const jobs = takeAll(requests, ({ id, messages, sampling, seed }) => ({
      id,
      promptIds: this.#encode(messages, true).tokenIds,
      sampling,
      seed,
    }));
    const completions = await loop.complete(jobs, signal);
    return completions.map((completion, index) => ({
      ...completion,
      text: this.tokenizer.decode(completion.tokenIds),
      promptTokens: jobs[index]!.promptIds.length,
    }));
  }

  async #score(
    requests: readonly ScoreRequest[],
    memory: Memory,
    { signal }: CallOptions = {},
  ): Promise<readonly ScoreResult[]> {
    const views = requests.map(({ id, messages, last }) => {
      const { tokenIds: whole, lossMask } = this.#encode(messages, false);
      // What follows the last scored token cannot change its probability, and need not fit the context.
      const tokenIds = whole.slice(0, lossMask.lastIndexOf(1) + 1);
      const { max_position_embeddings: context } = this.config;
      if (tokenIds.length > context) {
        throw new OptimaError(
          'model.failed',
          `Request "${id}": its ${tokenIds.length} tokens do not fit the context of ${context}.`,
        );
      }
      const all = countMessageTokens(id, messages, lossMask);
      const counts = last === undefined ? all : all.slice(Math.max(0, all.length - last));
      const asked = counts.reduce((sum, count) => sum + count, 0);
      const positions = lossMask.flatMap((mask, position) => (mask === 1 ? [position] : []));
      return { tokenIds, positions: positions.slice(positions.length - asked), counts };
    });
    const logprobs = await scoreTokens(views, {
      tokenBudget: this.#tokenBudget,
      memory,
      signal,
    });
    return views.map(({ counts }, index) => {
      let start = 0;
      return counts.map((count) => {
        start += count;
        return logprobs[index]!.slice(start - count, start);
      });
    });
  }

  encode(messages: readonly ChatMessage[]): TrainingSequence {
    return this.#encode(messages, false);
  }

  /**
   * The final hidden states: ids int32 [b, t], right-padded, or of a tree in one row → [b·t, d]. Differentiable with respect to
   * `parameters`; runs inside the caller's tidy.
   */
  computeHidden(ids: tf.Tensor2D, layout?: TreeLayout): tf.Tensor2D {
    return computeHidden(this.#decoder, ids, { layout });
  }

  /**
   * Logits of hidden states [n, d], of all or, given `rows` (int32 [m], flat positions), of those alone:
   * [n or m, vocab]. Differentiable; runs inside the caller's tidy.
   */
  project(hidden: tf.Tensor2D, rows?: tf.Tensor1D): tf.Tensor2D {
    return project(this.#decoder, hidden, rows);
  }

  /**
   * Logits of the tokens that follow the flat `positions` (int32 [n], default all) of right-padded `ids`
   * (int32 [b, t]): [n, vocab]. Differentiable; runs inside the caller's tidy.
   */
  computeLogits(ids: tf.Tensor2D, positions?: tf.Tensor1D, layout?: TreeLayout): tf.Tensor2D {
    return this.project(this.computeHidden(ids, layout), positions);
  }

  async save(folder: string): Promise<PolicyHash> {
    const weights = this.#download();
    this.#hash = hashPolicy(this.config, weights, this.#frame);
    const generation = this.#generation;
    await writeCheckpoint(folder, { config: this.config, weights, generation }, this.tokenizer.files);
    return this.#hash;
  }

  dispose(): void {
    this.#blocks.dispose();
    for (const variable of this.parameters.values()) variable.dispose();
  }

  #download(): Map<string, NamedArray> {
    return new Map(
      [...this.parameters].map(([name, variable]) => [
        name,
        { shape: variable.shape, values: variable.dataSync<'float32'>() },
      ]),
    );
  }

  #encode(messages: readonly ChatMessage[], addGenerationPrompt: boolean): TrainingSequence {
    const sequence = this.tokenizer.encodeChat(messages, addGenerationPrompt);
    const { vocab_size: vocab } = this.config;
    const stray = sequence.tokenIds.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
    if (stray !== undefined) {
      throw new OptimaError(
        'tokenizer.mismatch',
        `Token id ${stray} is outside the model's vocabulary of ${this.config.vocab_size}.`,
        { hint: 'Were these messages sampled from another model?' },
      );
    }
    return sequence;
  }
}

function requireFit({ vocabSize, endOfTurnId, padId }: ChatTokenizer, config: LlamaConfig): void {
  if (Math.max(vocabSize, endOfTurnId + 1, padId + 1) <= config.vocab_size) return;
  throw new OptimaError(
    'tokenizer.mismatch',
    `The tokenizer has ${vocabSize} tokens, the model's embedding table only ${config.vocab_size} rows.`,
    { hint: 'Use the tokenizer.json that belongs to this checkpoint.' },
  );
}

function createVariable(shape: readonly number[], values: Float32Array): tf.Variable {
  return tf.tidy(() => tf.variable(tf.tensor(values, [...shape], 'float32')));
}

/**
 * How many tokens each assistant message has: the runs of 1 in the mask, and 0 for messages that carry an
 * empty list of ids and so leave no run.
 */
function countMessageTokens(
  id: string,
  messages: readonly ChatMessage[],
  lossMask: readonly (0 | 1)[],
): number[] {
  const runs: number[] = [];
  lossMask.forEach((mask, position) => {
    if (mask === 0) return;
    if (lossMask[position - 1] === 1) runs[runs.length - 1]!++;
    else runs.push(1);
  });
  const assistants = messages.filter(({ role }) => role === 'assistant');
  const counts = assistants.map(({ tokenIds }) => (tokenIds?.length === 0 ? 0 : runs.shift()));
  if (runs.length > 0 || counts.includes(undefined)) {
    throw new OptimaError(
      'model.failed',
      `Request "${id}": the chat template does not keep its ${assistants.length} assistant messages apart.`,
    );
  }
  return counts as number[];
}

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
  requireFit(tokenizer, parsed);
  const complete = {
    ...parsed,
    eos_token_id: parsed.eos_token_id ?? tokenizer.endOfTurnId,
    pad_token_id: parsed.pad_token_id ?? tokenizer.padId,
  };
  return new LlamaPolicy(complete, initialWeights(complete, rng), tokenizer, options);
}

export interface LoadOptions extends LlamaOptions {
  /** Replaces the folder's own. */
  readonly tokenizer?: ChatTokenizer;
  /** What the weights must be. */
  readonly hash?: PolicyHash;
}

/**
 * The policy of a Hugging Face folder. Throws `checkpoint.missing`, `checkpoint.invalid`, which weights of another hash are
 * too, or `tokenizer.mismatch`.
 */
export async function loadPolicy(
  folder: string,
  { tokenizer, hash, ...options }: LoadOptions = {},
): Promise<LlamaPolicy> {
  const { config, weights, generation } = await readCheckpoint(folder);
  const own = tokenizer ?? (await loadTokenizer(folder));
  requireSameEnds(folder, own, [config.eos_token_id ?? [], generation?.eos_token_id ?? []].flat());
  const policy = new LlamaPolicy(config, weights, own, { generation, ...options });
  if (hash === undefined || policy.hash === hash) return policy;
  policy.dispose();
  throw new OptimaError('checkpoint.invalid', `${folder}: it has the hash ${policy.hash}, not ${hash}.`, {
    hint: 'The files were changed since they were written.',
  });
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
