// The in-process Llama behind the `TrainablePolicy` interface: messages in, tokens, log-probabilities and weights out.
import { OptimaError } from '../../domain/errors.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import type { AdaptableMatrix, LoraConfig } from '../../domain/lora.ts';
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
import type { BlockDecoder, TreeLayout, tf } from '../../tensor/index.ts';
import type { ChatTokenizer } from '../tokenizer/index.ts';
import {
  type Adapter,
  arrangeAdapter,
  hashAdapted,
  mergedMatrices,
  mostRank,
  ScaledFactors,
} from './adapter.ts';
import { writeAdapter } from './adapter-files.ts';
import { createBlockDecoder } from './block-decoder.ts';
import { type GenerationConfig, writeCheckpoint, writeCheckpointFiles } from './checkpoint.ts';
import type { LlamaConfig } from './config.ts';
import { computeHidden, type Decoder, project } from './forward.ts';
import { DecodeLoop } from './generate.ts';
import {
  createVariables,
  type HeldWeights,
  numbersOf,
  type SharedWeights,
  shareWeights,
  variablesOf,
  type Weight,
} from './held-weights.ts';
import { Memory, type PrefixStatistics } from './memory.ts';
import { RotaryTable } from './rotary.ts';
import { scoreTokens } from './score.ts';
import { policyDefaults } from './size.ts';
import { arrangeWeights, frameOf, hashPolicy, type NamedArray, startPolicyHash } from './weights.ts';

export interface LlamaOptions {
  /** Most requests that decode together. Default 128; throughput hardly grows beyond. */
  readonly maxRows?: number;
  /** Most tokens of one pass over prompts or given texts; a longer one has a pass of its own. Default 1024. */
  readonly tokenBudget?: number;
  /** Most bytes of keys and values that a session holds; 0: nothing is shared. Default 256 MiB. */
  readonly memoryBytes?: number;
  /** What a checkpoint's generation_config.json says: more ids that end a message, and what is kept for other tools. */
  readonly generation?: GenerationConfig | null;
  /** Where the weights were read; null where they were not. */
  readonly folder?: string | null;
}

/** A policy that is another one with an adapter, and reads that one's weights. */
interface Adapted {
  readonly base: LlamaPolicy;
  readonly adapter: Adapter;
  /** Whether the base is disposed with it; else its owner must not before. */
  readonly ownsBase: boolean;
}

/** A policy that remembers, with the tokens it had to read so far. */
export interface LlamaSession extends ModelSession {
  readonly statistics: PrefixStatistics;
  measure(): Promise<SessionStatistics>;
}

/**
 * A Llama-family decoder with its tokenizer, or one with an adapter over the weights of another. Made by `createPolicy`,
 * `loadPolicy` or `withAdapter`; the owner disposes it.
 */
export class LlamaPolicy implements TrainablePolicy {
  readonly config: LlamaConfig;
  readonly tokenizer: ChatTokenizer;
  /** All weights by Hugging Face name; those of the base where there is an adapter. */
  readonly weights: ReadonlyMap<string, Weight>;
  /** Where other threads find the weights; null where they have to read them. */
  readonly shared: SharedWeights | null;
  /** What is trained and saved: all weights, nothing where some are frozen, or the adapter's factors. Whoever assigns to them calls `refreshHash` when done. */
  readonly parameters: ReadonlyMap<string, tf.Variable>;
  /** What of the weights is trained; null: all. */
  readonly lora: LoraConfig | null;
  /** The policy without its adapter; itself where it has none. */
  readonly base: LlamaPolicy;
  /** Where the weights were read; null where they were not. */
  readonly folder: string | null;
  readonly #decoder: Decoder;
  readonly #options: Required<Omit<LlamaOptions, 'folder'>>;
  /** What of the hash is not the weights'. */
  readonly #frame: string;
  readonly #ownsBase: boolean;
  /** What reads into blocks, once there was a session. */
  #reader: { readonly blocks: BlockDecoder; readonly factors: ScaledFactors | null } | null = null;
  #hash: PolicyHash;

  /** Throws `tokenizer.mismatch` when the tokenizer knows more tokens than the embedding table has rows. */
  constructor(
    config: LlamaConfig,
    weights: ReadonlyMap<string, NamedArray> | HeldWeights | Adapted,
    tokenizer: ChatTokenizer,
    {
      maxRows = policyDefaults.maxRows,
      tokenBudget = policyDefaults.tokenBudget,
      memoryBytes = policyDefaults.memoryBytes,
      generation = null,
      folder = null,
    }: LlamaOptions = {},
  ) {
    if (!(maxRows >= 1)) throw new RangeError(`LlamaPolicy: maxRows ${maxRows} is not 1 or more.`);
    requireTokenizerFits(tokenizer, config);
    this.config = config;
    this.tokenizer = tokenizer;
    this.folder = folder;
    this.#options = { maxRows, tokenBudget, memoryBytes, generation };
    this.#frame = frameOf(tokenizer.hash, generation);
    if ('base' in weights) {
      const { base, adapter, ownsBase } = weights;
      [this.base, this.lora, this.#ownsBase] = [base, adapter.config, ownsBase];
      [this.weights, this.shared] = [base.weights, null];
      this.#hash = hashAdapted(base.hash, adapter);
      this.parameters = createVariables(adapter.factors);
      this.#decoder = base.#decoder;
    } else {
      [this.base, this.lora, this.#ownsBase] = [this, null, false];
      const isHeld = 'held' in weights;
      this.#hash = isHeld ? weights.hash : hashPolicy(config, weights, this.#frame);
      this.weights = isHeld ? weights.held : createVariables(weights);
      this.shared = isHeld ? shareWeights(weights, startPolicyHash(config, this.#frame).digest()) : null;
      this.parameters = this.shared === null ? variablesOf(this.weights) : new Map();
      this.#decoder = {
        config,
        weights: arrangeWeights(config, this.weights),
        rotary: new RotaryTable(config),
      };
    }
  }

  /**
   * This policy with an adapter over its own weights, which must not change then, in place of the one that it may have. With
   * `ownsBase` this policy is disposed with it, else not before.
   */
  withAdapter(adapter: Adapter, { ownsBase = false } = {}): LlamaPolicy {
    const options = { ...this.#options, folder: null };
    return new LlamaPolicy(this.config, { base: this.base, adapter, ownsBase }, this.tokenizer, options);
  }

  /** The highest rank of an adapter of these matrices. */
  mostRank(targets: readonly AdaptableMatrix[]): number {
    return mostRank(this.config, targets);
  }

  /** A policy with weights of its own, in which the adapter is merged: what `base` is without one. */
  merge(): LlamaPolicy {
    return new LlamaPolicy(this.config, this.#mergedWeights(), this.tokenizer, this.#options);
  }

  /** Writes the files of what `merge` gives into a folder that is there, a matrix at a time: no more of it than one is ever in memory. */
  writeMerged(folder: string): Promise<void> {
    const { config, tokenizer } = this;
    const { generation } = this.#options;
    const checkpoint = { config, weights: this.#mergedWeights(), generation };
    return writeCheckpointFiles(folder, checkpoint, tokenizer.files);
  }

  #mergedWeights(): Map<string, NamedArray> {
    const weights = numbersOf(this.weights);
    const merged = this.lora && mergedMatrices(this.config, this.lora, weights, this.parameters);
    return new Map([...weights, ...(merged ?? [])]);
  }

  /** Content hash, with the weights as of construction or of the last `refreshHash` or `save`. */
  get hash(): PolicyHash {
    return this.#hash;
  }

  /** Recomputes `hash` from the weights as they are now. */
  refreshHash(): PolicyHash {
    const arrays = numbersOf(this.lora === null ? this.weights : this.parameters);
    this.#hash =
      this.lora === null
        ? hashPolicy(this.config, arrays, this.#frame)
        : hashAdapted(this.base.hash, { config: this.lora, factors: arrays });
    return this.#hash;
  }

  generate(requests: readonly GenerationRequest[], options?: CallOptions): Promise<readonly Generation[]> {
    return inOwnSession(this, (session) => session.generate(requests, options));
  }

  score(requests: readonly ScoreRequest[], options?: CallOptions): Promise<readonly ScoreResult[]> {
    return inOwnSession(this, (session) => session.score(requests, options));
  }

  openSession({ memoryBytes = this.#options.memoryBytes }: SessionOptions = {}): LlamaSession {
    const { maxRows, tokenBudget, generation } = this.#options;
    const memory = new Memory(this.#openReader(), memoryBytes);
    const stopIds = new Set([
      this.tokenizer.endOfTurnId,
      ...[this.config.eos_token_id ?? []].flat(),
      ...[generation?.eos_token_id ?? []].flat(),
    ]);
    const loop = new DecodeLoop({
      stopIds,
      neverIds: this.tokenizer.controlIds.filter((id) => !stopIds.has(id)),
      maxRows,
      context: this.config.max_position_embeddings,
      tokenBudget,
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
      tokenBudget: this.#options.tokenBudget,
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
   * `parameters`; runs inside the caller's tidy. With a `seed` the adapter drops numbers as it says.
   */
  computeHidden(ids: tf.Tensor2D, layout?: TreeLayout, seed?: string): tf.Tensor2D {
    const adapter =
      this.lora === null ? undefined : arrangeAdapter(this.config, this.lora, this.parameters, seed);
    return computeHidden({ ...this.#decoder, adapter }, ids, { layout, recompute: this.lora?.recompute });
  }

  /** The policy as one pass of training reads it: what the adapter drops there follows from `seed`. */
  inTraining(seed: string): Pick<LlamaPolicy, 'parameters' | 'tokenizer' | 'computeLogits'> {
    if (this.lora === null) return this;
    return {
      parameters: this.parameters,
      tokenizer: this.tokenizer,
      computeLogits: (ids, positions, layout) =>
        this.project(this.computeHidden(ids, layout, seed), positions),
    };
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

  /** Writes a checkpoint, or where there is an adapter that alone. */
  async save(folder: string): Promise<PolicyHash> {
    const { config, lora, base, tokenizer } = this;
    const arrays = numbersOf(lora === null ? this.weights : this.parameters);
    if (lora === null) {
      this.#hash = hashPolicy(config, arrays, this.#frame);
      const { generation } = this.#options;
      await writeCheckpoint(folder, { config, weights: arrays, generation }, tokenizer.files);
    } else {
      const adapter = { config: lora, factors: arrays };
      this.#hash = hashAdapted(base.hash, adapter);
      await writeAdapter(folder, adapter, base);
    }
    return this.#hash;
  }

  dispose(): void {
    this.#reader?.blocks.dispose();
    this.#reader?.factors?.dispose();
    const own = this.lora === null ? variablesOf(this.weights) : this.parameters;
    for (const variable of own.values()) variable.dispose();
    if (this.#ownsBase) this.base.dispose();
  }

  #openReader(): BlockDecoder {
    this.#reader?.factors?.refresh();
    if (this.#reader === null) {
      const factors = this.lora && new ScaledFactors(this.config, this.lora, this.parameters);
      const blocks = createBlockDecoder({ ...this.#decoder, adapter: factors?.layers });
      this.#reader = { blocks, factors };
    }
    return this.#reader.blocks;
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

/** Throws `tokenizer.mismatch` when the tokenizer knows more tokens than the embedding table has rows. */
export function requireTokenizerFits(
  { vocabSize, endOfTurnId, padId }: ChatTokenizer,
  config: LlamaConfig,
  folder?: string,
): void {
  if (Math.max(vocabSize, endOfTurnId + 1, padId + 1) <= config.vocab_size) return;
  throw new OptimaError(
    'tokenizer.mismatch',
    `${folder === undefined ? 'The' : `${folder}: the`} tokenizer has ${vocabSize} tokens, the model's embedding table only ${config.vocab_size} rows.`,
    { hint: 'Use the tokenizer.json that belongs to this checkpoint.' },
  );
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
