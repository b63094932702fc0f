// `optima warmup`: makes a base checkpoint from scratch. Scenarios' demonstrators write dialogues, a tokenizer is
// trained on their texts, a small Llama learns to continue them, and a model card tells how it was made.
import fs from 'node:fs';
import path from 'node:path';
import type { ChatMessage, TrainingSequence } from '../domain/model.ts';
import { createRng, type Rng } from '../domain/rng.ts';
import { createPolicy, type LlamaPolicy } from '../models/llama/index.ts';
import { type ChatTokenizer, tokenizerFrom, trainTokenizer } from '../models/tokenizer/index.ts';
import type { Scenario } from '../scenario/types.ts';
import { defaultWarmupConfig, warmup } from '../training/warmup.ts';
import { type DemonstratedDialogue, demonstrateDialogues, textsOf, viewsOf } from './demonstrations.ts';
import { ioError, writeFileAtomic } from './files.ts';

export interface WarmupOptions {
  readonly scenarios: readonly Scenario[];
  readonly seed: number;
  readonly steps: number;
  /** Dialogues of one optimizer step; each gives a sequence for every role. */
  readonly dialoguesPerStep: number;
  /** First steps, in which the model only learns to repeat what it was told (see `echoOf`). */
  readonly echoSteps: number;
  /** Peak learning rate of AdamW. */
  readonly learningRate: number;
  /** Folder of the checkpoint; it is replaced as a whole at every save. */
  readonly out: string;
  /** Steps between saves and held-out measurements. */
  readonly saveEvery: number;
  readonly architecture: WarmupArchitecture;
  readonly signal?: AbortSignal;
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
  vocabSize: 768,
  hiddenSize: 128,
  feedForwardSize: 256,
  layers: 4,
  heads: 4,
  keyValueHeads: 2,
  contextTokens: 1024,
};

export interface WarmupStep {
  readonly step: number;
  readonly steps: number;
  /** Mean negative log-likelihood per trained token, nats. */
  readonly loss: number;
  readonly learningRate: number;
  /** Loss on held-out dialogues (validation split), measured at every save; else null. */
  readonly validationLoss: number | null;
}

/** Dialogues the tokenizer is trained on, and those the held-out loss is measured on. */
const tokenizerDialogues = 4000;
const heldOutDialogues = 128;
/** Steps whose dialogues are written ahead at once. */
const stepsPerChunk = 50;

/**
 * Trains a base model and leaves it in `out`; resolves with the policy, which the caller disposes. A killed
 * warm-up leaves the last whole save. Rejects with `interrupted` on abort and `training.diverged` on a loss
 * that is not finite.
 */
export async function warmUp(options: WarmupOptions): Promise<LlamaPolicy> {
  const { scenarios, seed, steps, out, saveEvery } = options;
  const rng = createRng(seed).split('warmup');
  ensureFolder(path.dirname(path.resolve(out)));
  const sample = await demonstrateDialogues(scenarios, 'train', tokenizerDialogues, rng.split('tokenizer'));
  const { vocabSize } = options.architecture;
  const { tokenizerJson, tokenizerConfig } = trainTokenizer(sample.flatMap(textsOf), { vocabSize });
  const tokenizer = tokenizerFrom(tokenizerJson, tokenizerConfig);
  const policy = createPolicy(configOf(options.architecture, tokenizer), tokenizer, rng.split('weights'));
  const heldOut = await demonstrateDialogues(
    scenarios,
    'validation',
    heldOutDialogues,
    rng.split('held-out'),
  );
  const heldOutViews = heldOut.flatMap(viewsOf);

  const log: WarmupStep[] = [];
  const batches = new BatchAhead(options, policy, rng.split('dialogues'));
  await batches.prepare(0);
  await warmup(
    policy,
    (index) => batches.take(index),
    { ...defaultWarmupConfig, steps, learningRate: options.learningRate },
    {
      signal: options.signal,
      onStep: async ({ step, loss, learningRate }) => {
        const done = step + 1;
        const last = done === steps;
        const save = last || done % saveEvery === 0;
        const validationLoss = save ? await heldOutLoss(policy, heldOutViews) : null;
        const entry = { step: done, steps, loss, learningRate, validationLoss };
        if (save || done % 100 === 0) log.push(entry);
        options.onStep?.(entry);
        if (save) await policy.save(out);
        if (!last) await batches.prepare(done);
      },
    },
  );
  writeFileAtomic(path.join(out, 'training.json'), `${JSON.stringify({ seed, steps, log }, null, 1)}\n`);
  return policy;
}

/** Writes dialogues a chunk of steps ahead, because task sources are asynchronous and steps are not. */
class BatchAhead {
  private chunk = -1;
  private sequences: (readonly TrainingSequence[])[] = [];
  private readonly scenarios: readonly Scenario[];
  private readonly perStep: number;
  private readonly echoSteps: number;
  private readonly policy: LlamaPolicy;
  private readonly rng: Rng;

  constructor({ scenarios, dialoguesPerStep, echoSteps }: WarmupOptions, policy: LlamaPolicy, rng: Rng) {
    this.scenarios = scenarios;
    this.perStep = dialoguesPerStep;
    this.echoSteps = echoSteps;
    this.policy = policy;
    this.rng = rng;
  }

  async prepare(step: number): Promise<void> {
    const chunk = Math.floor(step / stepsPerChunk);
    if (chunk === this.chunk) return;
    const count = stepsPerChunk * this.perStep;
    const dialogues = await demonstrateDialogues(this.scenarios, 'train', count, this.rng.split(chunk));
    const shuffled = this.rng.split(`order/${chunk}`).shuffle(dialogues);
    this.sequences = Array.from({ length: stepsPerChunk }, (_, index) => {
      const echo = chunk * stepsPerChunk + index < this.echoSteps;
      return shuffled
        .slice(index * this.perStep, (index + 1) * this.perStep)
        .flatMap((dialogue, row) =>
          echo ? echoOf(dialogue, this.rng.split(`echo/${chunk}/${index}/${row}`)) : viewsOf(dialogue),
        )
        .map((view) => this.policy.encode(view));
    });
    this.chunk = chunk;
  }

  take(step: number): readonly TrainingSequence[] {
    return this.sequences[step % stepsPerChunk]!;
  }
}

/**
 * Each role's view, and its lines once more, in another order, as the answer. Every name in the answer can be
 * copied, and nothing else can be learnt: in a few hundred steps attention finds the circuit that looks up where a
 * word stood before and copies what followed (induction heads; Olsson et al., 2022). On dialogues alone the
 * same model was still guessing names after 600 steps.
 */
function echoOf({ views }: DemonstratedDialogue, rng: Rng): ChatMessage[][] {
  return Object.values(views).map((view) => [
    { role: 'system', content: view },
    { role: 'assistant', content: rng.shuffle(view.split('\n')).join('\n') },
  ]);
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
  try {
    fs.mkdirSync(folder, { recursive: true });
    fs.accessSync(folder, fs.constants.W_OK);
  } catch (error) {
    throw ioError('write', folder, error);
  }
}
