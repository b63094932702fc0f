// `optima warmup`: makes a base checkpoint from scratch. Scenarios' demonstrators write dialogues, a tokenizer is
// trained on their texts, a small Llama learns to continue them, and a model card tells how it was made.
import fs from 'node:fs';
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import type { LoraConfig } from '../domain/lora.ts';
import type { ChatMessage, TrainingSequence } from '../domain/model.ts';
import type { Progress } from '../domain/progress.ts';
import { createRng, type Rng } from '../domain/rng.ts';
import { createPolicy, freshAdapter, type LlamaPolicy, requireApart } from '../models/llama/index.ts';
import { type ChatTokenizer, tokenizerFrom, trainTokenizer } from '../models/tokenizer/index.ts';
import type { Scenario } from '../scenario/types.ts';
import { ioError, makeFolder, writeFileAtomic } from '../store/files.ts';
import { defaultSftConfig } from '../training/sft/config.ts';
import type { ComputePasses } from '../training/step.ts';
import { defaultWarmupConfig, warmup } from '../training/warmup.ts';
import { type DemonstratedDialogue, demonstrateDialogues, textsOf, viewsOf } from './demonstrations.ts';
import { EchoLessons, lookupLessons } from './lessons.ts';
import { type WarmupStep, writeModelCard } from './model-card.ts';

export interface WarmupOptions {
  readonly scenarios: readonly Scenario[];
  readonly seed: number;
  readonly steps: number;
  /** Dialogues of one optimizer step; each gives a sequence for every role. */
  readonly dialoguesPerStep: number;
  /** At most so many first steps are spent on learning to copy (see `EchoLessons`). */
  readonly echoSteps: number;
  /** Peak learning rate of AdamW. */
  readonly learningRate: number;
  /** Dialogues that the tokenizer is trained on. Default 4,000. */
  readonly tokenizerDialogues?: number;
  /** A policy to go on from, with its tokenizer and architecture, instead of new ones; it is trained in place. */
  readonly initFrom?: LlamaPolicy;
  /** Trains an adapter of `initFrom` in place of its weights; one that it has goes on as it was loaded. */
  readonly lora?: LoraConfig | undefined;
  /** Folder of the checkpoint; it is replaced as a whole at every save. */
  readonly out: string;
  /** Steps between saves and held-out measurements. */
  readonly saveEvery: number;
  readonly architecture: WarmupArchitecture;
  /** Where the gradients of the policy in training are computed; by default on this thread. */
  readonly gradientsOf?: (policy: LlamaPolicy) => Promise<ComputePasses<TrainingSequence>>;
  /** For the model card: the command line, and the engine in one line. */
  readonly command: string;
  readonly engine: string;
  readonly signal?: AbortSignal;
  /** Told of the card's dialogues. */
  readonly progress?: Progress;
  readonly onStep?: (step: WarmupStep) => void;
}

export interface WarmupArchitecture {
  /** Upper bound of the vocabulary. */
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly feedForwardSize: number;
  readonly layers: number;
  readonly heads: number;
  /** Key/value heads; half as many as `heads` halve what decoding reads. */
  readonly keyValueHeads: number;
  readonly contextTokens: number;
}

/** The shipped model: 0.7 million parameters, 3 MB. */
export const tinyArchitecture: WarmupArchitecture = {
  vocabSize: 1024,
  hiddenSize: 128,
  feedForwardSize: 256,
  layers: 4,
  heads: 4,
  keyValueHeads: 2,
  contextTokens: 1024,
};

/** Dialogues the held-out loss is measured on. */
const heldOutDialogues = 128;
/** Steps whose dialogues are written ahead at once. */
const stepsPerChunk = 50;

/**
 * Trains a base model and leaves it in `out`; resolves with the policy, which the caller disposes. A killed
 * warm-up leaves the last whole save. Rejects with `interrupted` on abort and `training.diverged` on a loss
 * that is not finite.
 */
export async function warmUp(options: WarmupOptions): Promise<LlamaPolicy> {
  const { scenarios, seed, steps, out, saveEvery, initFrom, lora, gradientsOf } = options;
  const rng = createRng(seed).split('warmup');
  if (initFrom !== undefined && (lora ?? initFrom.lora) !== null) requireApart(out, initFrom.base);
  ensureFolder(path.dirname(path.resolve(out)));
  const startedAs = initFrom?.hash ?? null;
  const policy = initFrom === undefined ? await newPolicy(options, rng) : trainedOf(initFrom, options, rng);
  const heldOut = await demonstrateDialogues(
    scenarios,
    'validation',
    heldOutDialogues,
    rng.split('held-out'),
  );
  const heldOutViews = heldOut.flatMap(viewsOf);

  const log: WarmupStep[] = [];
  const batches = new Batches(options, policy, rng.split('dialogues'));
  await batches.prepare(0);
  const computePasses = await gradientsOf?.(policy);
  let saved = 0;
  await warmup(
    policy,
    (index) => batches.take(index),
    {
      ...defaultWarmupConfig,
      steps,
      learningRate: options.learningRate,
      warmupSteps: risingSteps(steps),
      // What is adapted is larger than what is made here: passes as small as the loop's, which leave it room.
      ...(policy.lora !== null && { tokensPerPass: defaultSftConfig.tokensPerPass }),
    },
    {
      computePasses,
      seed: `${rng.split('chance').seed32()}`,
      signal: options.signal,
      onStep: async ({ step, loss, learningRate }) => {
        const done = step + 1;
        const echo = !batches.echo.finished;
        if (echo) batches.echo.learn(loss);
        const last = done === steps;
        const save = last || done % saveEvery === 0;
        const validationLoss = save ? await heldOutLoss(policy, heldOutViews) : null;
        const entry = { step: done, steps, echo, loss, learningRate, validationLoss };
        if (save || done % 100 === 0) log.push(entry);
        options.onStep?.(entry);
        if (save) {
          await policy.save(out);
          saved = done;
        }
        if (!last) await batches.prepare(done);
      },
    },
  ).catch((error) => {
    if (saved === 0 || !(error instanceof OptimaError) || error.code !== 'interrupted') throw error;
    const hint = `The weights of step ${saved} are in ${path.relative('', out)}: train them, or go on from there with --from.`;
    throw new OptimaError('interrupted', error.message, { hint, cause: error });
  });
  writeFileAtomic(path.join(out, 'training.json'), `${JSON.stringify({ seed, steps, log }, null, 1)}\n`);
  await writeModelCard(out, { ...options, policy, log, startedAs });
  return policy;
}

/** Steps in which the rate rises: a hundred, or the third of a short warm-up, so that it too comes to its rate. */
export const risingSteps = (steps: number): number =>
  Math.min(defaultWarmupConfig.warmupSteps, Math.ceil(steps / 3));

/** What is trained of a checkpoint: it as it is, or a new adapter, with which it is disposed. */
function trainedOf(from: LlamaPolicy, { lora }: WarmupOptions, rng: Rng): LlamaPolicy {
  if (lora === undefined || from.lora !== null) return from;
  return from.withAdapter(freshAdapter(from.config, lora, rng.split('adapter')), { ownsBase: true });
}

/** Fresh weights, and a tokenizer of the scenarios' own texts. */
async function newPolicy(
  { scenarios, architecture, tokenizerDialogues = 4000 }: WarmupOptions,
  rng: Rng,
): Promise<LlamaPolicy> {
  const sample = await demonstrateDialogues(scenarios, 'train', tokenizerDialogues, rng.split('tokenizer'));
  const { vocabSize } = architecture;
  const { tokenizerJson, tokenizerConfig } = trainTokenizer(sample.flatMap(textsOf), { vocabSize });
  const tokenizer = tokenizerFrom(tokenizerJson, tokenizerConfig);
  return createPolicy(configOf(architecture, tokenizer), tokenizer, rng.split('weights'));
}

/** Writes dialogues a chunk of steps ahead, because task sources are asynchronous and steps are not. */
class Batches {
  readonly echo: EchoLessons;
  private readonly options: WarmupOptions;
  private readonly policy: LlamaPolicy;
  private readonly rng: Rng;
  private chunk = -1;
  private dialogues: readonly DemonstratedDialogue[] = [];

  constructor(options: WarmupOptions, policy: LlamaPolicy, rng: Rng) {
    this.options = options;
    this.policy = policy;
    this.rng = rng;
    this.echo = new EchoLessons(options.echoSteps);
  }

  async prepare(step: number): Promise<void> {
    const chunk = Math.floor(step / stepsPerChunk);
    if (chunk === this.chunk) return;
    const count = stepsPerChunk * this.options.dialoguesPerStep;
    const { scenarios } = this.options;
    const dialogues = await demonstrateDialogues(scenarios, 'train', count, this.rng.split(chunk));
    this.dialogues = this.rng.split(`order/${chunk}`).shuffle(dialogues);
    this.chunk = chunk;
  }

  take(step: number): readonly TrainingSequence[] {
    const { dialoguesPerStep } = this.options;
    const start = (step % stepsPerChunk) * dialoguesPerStep;
    const dialogues = this.dialogues.slice(start, start + dialoguesPerStep);
    const views = this.echo.finished
      ? [...dialogues.flatMap(viewsOf), ...lookupLessons(dialogues, this.rng.split(`lookup/${step}`))]
      : this.echo.write(this.dialogues, this.rng.split(`echo/${step}`));
    return views.map((view) => this.policy.encode(view));
  }
}

function configOf(architecture: WarmupArchitecture, tokenizer: ChatTokenizer) {
  return {
    vocab_size: tokenizer.vocabSize,
    hidden_size: architecture.hiddenSize,
    intermediate_size: architecture.feedForwardSize,
    num_hidden_layers: architecture.layers,
    num_attention_heads: architecture.heads,
    num_key_value_heads: architecture.keyValueHeads,
    // With 0.02, which suits wide models, a narrow one takes ten times as long to find out that it can copy.
    initializer_range: 1 / Math.sqrt(architecture.hiddenSize),
    max_position_embeddings: architecture.contextTokens,
    tie_word_embeddings: true,
    eos_token_id: tokenizer.endOfTurnId,
    pad_token_id: tokenizer.padId,
  };
}

/** Mean negative log-likelihood per token of the views' assistant messages, nats. */
async function heldOutLoss(policy: LlamaPolicy, views: readonly (readonly ChatMessage[])[]): Promise<number> {
  const scores = await policy.score(views.map((messages, index) => ({ id: `held-out ${index}`, messages })));
  const logprobs = scores.flat(2);
  return -logprobs.reduce((sum, logprob) => sum + logprob, 0) / logprobs.length;
}

function ensureFolder(folder: string): void {
  makeFolder(folder);
  try {
    fs.accessSync(folder, fs.constants.W_OK);
  } catch (error) {
    throw ioError('write', folder, error);
  }
}
