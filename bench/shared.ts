// What the benchmarks share: the decoders that they measure, and the line of JSON that each prints for run.ts.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { GenerationRequest, LanguageModel, TrainingSequence } from '../src/domain/model.ts';
import { createRng, type Rng } from '../src/domain/rng.ts';
import { createBlockDecoder } from '../src/models/llama/block-decoder.ts';
import { createPolicy, type LlamaPolicy, loadPolicy } from '../src/models/llama/index.ts';
import { Memory } from '../src/models/llama/memory.ts';
import { RotaryTable } from '../src/models/llama/rotary.ts';
import { arrangeWeights } from '../src/models/llama/weights.ts';
import { type ChatTokenizer, tokenizerFrom, trainTokenizer } from '../src/models/tokenizer/index.ts';
import { loadScenario } from '../src/scenario/load.ts';
import type { Engine } from '../src/tensor/index.ts';
import { demonstrateDialogues, viewsOf } from '../src/warmup/demonstrations.ts';
import type { PolicyHost, PolicySource } from '../src/workers/index.ts';

export interface StepFigures {
  readonly bench: 'tensor-step';
  readonly engine: Engine;
  readonly shape: Shape;
  /** Threads that computed the gradients; 0: the main thread. */
  readonly workers: number;
  readonly steps: number;
  readonly tokensPerStep: number;
  /** Median. */
  readonly secondsPerStep: number;
  readonly bestSeconds: number;
  /** CPU time of one step, all threads together; more than `secondsPerStep` where the BLAS has several. */
  readonly cpuSeconds: number;
  /** Of training, from the median. */
  readonly tokensPerSecond: number;
  /** What the engine holds for tensors. */
  readonly heapMiB: number;
  /** Of the last step, nats per token: the same on every backend but for rounding. */
  readonly loss: number;
}

export interface DecodeFigures {
  readonly bench: 'decode';
  readonly engine: Engine;
  readonly shape: Shape;
  /** Threads that decoded, each its share of the rows; 0: the main thread. */
  readonly workers: number;
  readonly rows: number;
  readonly promptTokens: number;
  readonly newTokens: number;
  /** New tokens of all rows, the reading of the prompts left out. */
  readonly tokensPerSecond: number;
  readonly tokensPerSecondWithPrompts: number;
  readonly promptTokensPerSecond: number;
}

export interface DialogueFigures {
  readonly bench: 'dialogues';
  /** Dialogues of one run. */
  readonly dialogues: number;
  readonly runs: number;
  readonly turnsPerDialogue: number;
  readonly messagesPerDialogue: number;
  /** Of the median run, and of the best one. */
  readonly dialoguesPerSecond: number;
  readonly bestDialoguesPerSecond: number;
  readonly microsecondsPerTurn: number;
  /** What a dialogue costs in transitions of the smallest machine, measured beside it. */
  readonly transitionsPerDialogue: number;
}

export interface TreeFigures {
  readonly bench: 'tree';
  readonly engine: Engine;
  /** Messages that were written. */
  readonly turns: number;
  readonly leaves: number;
  /** Tokens that went through the decoder when every prompt is read from its start, and with a session's memory. */
  readonly tokensWithout: number;
  readonly tokensWith: number;
  readonly secondsWithout: number;
  readonly secondsWith: number;
  /** Share of the prompts' tokens that were known. */
  readonly hitRate: number;
}

export type Figures = StepFigures | DecodeFigures | DialogueFigures | TreeFigures;
/** A line of a benchmark's output. */
export type Line = Figures & {
  /** Most memory that the process held up to here. */
  readonly peakMiB: number;
};

/** Prints figures as one line of JSON. */
export function report(figures: Figures): void {
  const peakMiB = Math.round(process.resourceUsage().maxRSS / 1024);
  console.log(JSON.stringify({ ...figures, peakMiB } satisfies Line));
}

/**
 * `reference`: the shape that the design's figures are for, with random weights. `tiny`: the model that ships, on
 * dialogues of two-hop-qa.
 */
export type Shape = 'reference' | 'tiny';

export interface Subject {
  readonly shape: Shape;
  readonly policy: LlamaPolicy;
  /** Where workers find the policy. */
  readonly source: PolicySource;
  readonly rng: Rng;
}

export const packageFolder = fileURLToPath(new URL('..', import.meta.url));

/** The policy of a shape, as a checkpoint too. Needs a started engine; the process removes the folder at its end. */
export async function openSubject(shape: Shape): Promise<Subject> {
  const rng = createRng(1);
  if (shape === 'tiny') {
    const folder = path.join(packageFolder, 'models/tiny');
    const policy = await loadPolicy(folder);
    return { shape, policy, source: { folder, hash: policy.hash }, rng };
  }
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-bench-'));
  process.on('exit', () => fs.rmSync(folder, { recursive: true }));
  const policy = createReferencePolicy(rng.split('weights'));
  return { shape, policy, source: { folder, hash: await policy.save(folder) }, rng };
}

/** A randomly initialized decoder of 0.94 million weights. */
export function createReferencePolicy(rng: Rng): LlamaPolicy {
  const text = fs.readFileSync(path.join(packageFolder, 'models/tiny/tokenizer.json'), 'utf8');
  const { tokenizerJson, tokenizerConfig } = trainTokenizer([text], { vocabSize: 512 });
  const config = {
    vocab_size: 512,
    hidden_size: 128,
    intermediate_size: 400,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    max_position_embeddings: 1024,
    tie_word_embeddings: true,
  };
  return createPolicy(config, tokenizerFrom(tokenizerJson, tokenizerConfig), rng);
}

/** A batch to train on: 32 random sequences of 128 tokens that all count, or both views of 16 real dialogues. */
export async function trainingBatch({ shape, policy, rng }: Subject): Promise<TrainingSequence[]> {
  if (shape === 'tiny') {
    const { scenario } = await loadScenario('two-hop-qa');
    const dialogues = await demonstrateDialogues([scenario], 'train', 16, rng.split('dialogues'));
    return dialogues.flatMap(viewsOf).map((view) => policy.encode(view));
  }
  // The last token of a sequence is only predicted, the first one only read.
  const lossMask = Array.from({ length: 129 }, () => 1 as const);
  return Array.from({ length: 32 }, () => ({ tokenIds: randomIds(policy, rng, 129), lossMask }));
}

/** A memory of the decoder below a policy, which itself would stop where its random weights say so. */
export function createMemory({ config, weights }: LlamaPolicy, maxBytes?: number): Memory {
  const decoder = { config, weights: arrangeWeights(config, weights), rotary: new RotaryTable(config) };
  return new Memory(createBlockDecoder(decoder), maxBytes);
}

/** A host of models that are a script, which learn nothing. As models do, they take their time. */
export function scriptedHost(
  { encode, endOfTurnId }: Pick<ChatTokenizer, 'encode' | 'endOfTurnId'>,
  reply: (request: GenerationRequest) => string,
): PolicyHost {
  const speak = ({ hash }: PolicySource): LanguageModel => ({
    hash,
    async generate(requests) {
      await nextTick();
      return requests.map((request) => {
        const text = reply(request);
        const tokenIds = [...encode(text), endOfTurnId];
        const logprobs = tokenIds.map((_, token) => -((request.seed + token) % 1000) / 1000);
        return { text, tokenIds, logprobs, finish: 'stop', promptTokens: 20 };
      });
    },
    async score(requests) {
      await nextTick();
      return requests.map(({ messages, last }) => {
        const scores = messages.flatMap(({ tokenIds }) =>
          tokenIds === undefined ? [] : [tokenIds.map((id) => -0.5 - (id % 7) / 10)],
        );
        return last === undefined ? scores : scores.slice(-last);
      });
    },
  });
  return {
    // Two, as with two workers: cohorts are held side by side.
    modelsOf: async (source) => [speak(source), speak(source)],
    gradientsOf: (_objective, _source, policy) => async () => {
      const gradients = [...policy.parameters].map(
        ([name, { size }]) => [name, new Float32Array(size)] as const,
      );
      return { loss: 1, figures: {}, gradients: new Map(gradients) };
    },
    keep() {},
    async stop() {},
  };
}

/** Random token ids. */
export const randomIds = (policy: LlamaPolicy, rng: Rng, length: number): number[] =>
  Array.from({ length }, () => rng.int(policy.config.vocab_size));

/** An argument of the command line as a whole number. */
export function countArgument(index: number, initial: number): number {
  const text = process.argv[2 + index];
  return text === undefined ? initial : wholeNumber(text);
}

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 0) return value;
  throw new RangeError(`"${text}" is not a whole number.`);
}

export function shapeArgument(index: number): Shape {
  const text = process.argv[2 + index] ?? 'reference';
  if (text === 'reference' || text === 'tiny') return text;
  throw new RangeError(`"${text}" is neither reference nor tiny.`);
}

export const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));
