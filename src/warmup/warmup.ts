// `optima warmup`: makes a base checkpoint from scratch. Scenarios' demonstrators write dialogues, a tokenizer is
// trained on their texts, a small Llama learns to continue them, and a model card tells how it was made.
import fs from 'node:fs';
import path from 'node:path';
import type { ChatMessage, TrainingSequence } from '../domain/model.ts';
import { createRng, type Rng } from '../domain/rng.ts';
import { createPolicy, type LlamaPolicy } from '../models/llama/index.ts';
import { type ChatTokenizer, tokenizerFrom, trainTokenizer } from '../models/tokenizer/index.ts';
import type { Scenario } from '../scenario/types.ts';
import { ioError, makeFolder, writeFileAtomic } from '../store/files.ts';
import { defaultWarmupConfig, warmup } from '../training/warmup.ts';
import { type DemonstratedDialogue, demonstrateDialogues, textsOf, viewsOf } from './demonstrations.ts';
import { writeModelCard } from './model-card.ts';

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
  /** Folder of the checkpoint; it is replaced as a whole at every save. */
  readonly out: string;
  /** Steps between saves and held-out measurements. */
  readonly saveEvery: number;
  readonly architecture: WarmupArchitecture;
  /** For the model card: the command line, and the engine in one line. */
  readonly command: string;
  readonly engine: string;
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
  vocabSize: 1024,
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
  /** Whether it was a step of the first lessons. */
  readonly echo: boolean;
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
  const batches = new Batches(options, policy, rng.split('dialogues'));
  await batches.prepare(0);
  await warmup(
    policy,
    (index) => batches.take(index),
    { ...defaultWarmupConfig, steps, learningRate: options.learningRate },
    {
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
        if (save) await policy.save(out);
        if (!last) await batches.prepare(done);
      },
    },
  );
  writeFileAtomic(path.join(out, 'training.json'), `${JSON.stringify({ seed, steps, log }, null, 1)}\n`);
  await writeModelCard(out, { ...options, policy, log });
  return policy;
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

/** Mean loss, nats per token, below which a lesson counts as learnt; the order of its lines stays open. */
const echoMastery = 0.45;
/** Lines of the last lesson. */
const longestEcho = 6;
/** Lines that one batch repeats, whatever the lesson: all batches are of about one size. */
const echoLinesPerBatch = 180;

/**
 * The first lessons: a role is told a few lines of its view and repeats them in another order. Every name can be
 * copied and hardly anything else can be learnt, so attention finds the circuit that looks up where a word
 * stood before and copies what followed (induction heads; Olsson et al., 2022). It finds it while the lines
 * are few, so each lesson has one line more than the one before, and begins once that is learnt. Without such
 * lessons, trials of this size were still guessing names after hundreds of steps (ARCHITECTURE.md).
 */
class EchoLessons {
  private readonly steps: number;
  private lines = 2;
  private step = 0;
  /** Moving average of the lesson's loss; null at its start. */
  private loss: number | null = null;

  constructor(steps: number) {
    this.steps = steps;
  }

  get finished(): boolean {
    return this.lines > longestEcho || this.step >= this.steps;
  }

  write(dialogues: readonly DemonstratedDialogue[], rng: Rng): ChatMessage[][] {
    return Array.from({ length: Math.floor(echoLinesPerBatch / this.lines) }, () => {
      const told = rng.shuffle(privateLines(rng.pick(dialogues), rng).own).slice(0, this.lines);
      return [
        { role: 'system', content: told.join('\n') },
        { role: 'assistant', content: rng.shuffle(told).join('\n') },
      ];
    });
  }

  /** Takes the loss of a lesson's step into account. */
  learn(loss: number): void {
    this.step++;
    this.loss = this.loss === null ? loss : 0.8 * this.loss + 0.2 * loss;
    if (this.loss >= echoMastery) return;
    this.lines++;
    this.loss = null;
  }
}

/** Cues of one lookup lesson. */
const cuesPerLesson = 4;
/** How often a cue comes from another role's lines, which the learner most often does not hold. */
const foreignCues = 0.3;

/**
 * Lessons that go on beside the dialogues, one for each: given two neighbouring words, a role states the one line
 * of its view that holds them, or `?` when none does. In dialogues the same skill (whose birthplace, and do I
 * know it?) decides a few tokens in a hundred, and hasty speakers do without it: trials that had only dialogues
 * read by the relation and not by the subject (ARCHITECTURE.md).
 */
function lookupLessons(dialogues: readonly DemonstratedDialogue[], rng: Rng): ChatMessage[][] {
  return dialogues.flatMap((dialogue) => {
    const { own, others } = privateLines(dialogue, rng);
    if (own.length === 0) return [];
    const lesson: ChatMessage[] = [{ role: 'system', content: own.join('\n') }];
    for (let cue = 0; cue < cuesPerLesson; cue++) {
      const foreign = others.length > 0 && rng.next() < foreignCues;
      const words = rng.pick(foreign ? others : own).split(' ');
      const start = rng.int(Math.max(1, words.length - 1));
      const span = words.slice(start, start + 2).join(' ');
      const holders = own.filter((line) => line.includes(span));
      if (holders.length > 1) continue;
      lesson.push({ role: 'user', content: `? ${span}` }, { role: 'assistant', content: holders[0] ?? '?' });
    }
    return [lesson];
  });
}

/** The lines that only a role drawn at random is told, and those that only others are told. */
function privateLines(dialogue: DemonstratedDialogue, rng: Rng): { own: string[]; others: string[] } {
  const views = Object.values(dialogue.views).map((view) => view.split('\n'));
  const role = rng.int(views.length);
  const own = views[role]!;
  const others = views.filter((_, index) => index !== role).flat();
  // What the roles share is the scenario's fixed wording: nothing to learn there.
  return {
    own: own.filter((line) => !others.includes(line)),
    others: others.filter((line) => !own.includes(line)),
  };
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
