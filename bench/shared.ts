// What the benchmarks share: the decoder that they measure, and the line of JSON that each prints for run.ts.
import { createRng, type Rng } from '../src/domain/rng.ts';
import { createBlockDecoder } from '../src/models/llama/block-decoder.ts';
import { createPolicy, type LlamaPolicy } from '../src/models/llama/index.ts';
import { Memory } from '../src/models/llama/memory.ts';
import { RotaryTable } from '../src/models/llama/rotary.ts';
import { arrangeWeights } from '../src/models/llama/weights.ts';
import type { Engine } from '../src/tensor/index.ts';
import { lettersTokenizer } from '../test/support/letters.ts';

export interface StepFigures {
  readonly bench: 'tensor-step';
  readonly engine: Engine;
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
  readonly dialogues: number;
  readonly turnsPerDialogue: number;
  readonly messagesPerDialogue: number;
  readonly dialoguesPerSecond: number;
  readonly microsecondsPerTurn: number;
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

/** A randomly initialized decoder of 0.94 million weights, near the tiny model in size. Needs a started engine. */
export function createBenchPolicy(): { readonly policy: LlamaPolicy; readonly rng: Rng } {
  const rng = createRng(1);
  const config = {
    vocab_size: 512,
    hidden_size: 128,
    intermediate_size: 400,
    num_hidden_layers: 4,
    num_attention_heads: 4,
  };
  return { policy: createPolicy(config, lettersTokenizer, rng.split('weights')), rng };
}

/** A memory of the decoder below a policy, which itself would stop where its random weights say so. */
export function createMemory({ config, parameters }: LlamaPolicy, maxBytes?: number): Memory {
  const weights = arrangeWeights(config, parameters);
  return new Memory(createBlockDecoder({ config, weights, rotary: new RotaryTable(config) }), maxBytes);
}

/** Random token ids. */
export const randomIds = (policy: LlamaPolicy, rng: Rng, length: number): number[] =>
  Array.from({ length }, () => rng.int(policy.config.vocab_size));

/** An argument of the command line as a whole number, above 0 where it is given. */
export function countArgument(index: number, initial: number): number {
  const text = process.argv[2 + index];
  return text === undefined ? initial : wholeNumber(text);
}

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new RangeError(`"${text}" is not a whole number above 0.`);
}

export const rounded = (value: number, digits: number): number => Number(value.toFixed(digits));
