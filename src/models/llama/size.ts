// Bytes and operations of a decoder, from its config alone. The sums follow the kernels of src/tensor/wasm, which hold everything
// but frozen matrices as float32; bench/plan.ts holds them against processes.
import { totalmem } from 'node:os';
import { OptimaError } from '../../domain/errors.ts';
import type { LoraConfig } from '../../domain/lora.ts';
import { bytesPerNumber, type FrozenFormat, frozenBytes, heapRoom } from '../../tensor/index.ts';
import { factorShapes } from './adapter.ts';
import type { LlamaConfig } from './config.ts';
import { weightShapes } from './weights.ts';

/** Numbers of all weights together. */
export const parameterCount = (config: LlamaConfig): number => countIn(weightShapes(config));

function countIn(shapes: ReadonlyMap<string, readonly number[]>): number {
  let count = 0;
  for (const shape of shapes.values()) count += shape.reduce((product, n) => product * n, 1);
  return count;
}

/** Bytes of the weights where none is frozen: in float32, whatever a file has them in. */
export const weightBytes = (config: LlamaConfig): number => 4 * parameterCount(config);

/** What a heap needs beside the weights at least, for a short text: work space, logits, keys and values. */
const leastBeside = 2 ** 27;

/** Bytes of frozen matrices. */
export const bytesFrozen = (config: LlamaConfig, formats: ReadonlyMap<string, FrozenFormat>): number =>
  [...weightShapes(config)].reduce((sum, [name, shape]) => {
    const format = formats.get(name);
    return format === undefined ? sum : sum + frozenBytes(shape as [number, number], format);
  }, 0);

/**
 * Throws `model.failed` where weights cannot be held, before any is read; `source` names them. Those that have a format in `frozen`
 * are not the engine's to hold.
 */
export function requireRoomForWeights(
  config: LlamaConfig,
  source: string,
  frozen: ReadonlyMap<string, FrozenFormat> = new Map(),
): void {
  const room = heapRoom();
  const onHeap = countIn(new Map([...weightShapes(config)].filter(([name]) => !frozen.has(name))));
  const needed = bytes(onHeap) + leastBeside;
  const inUse = room === null ? 0 : room.all - room.free;
  if (room !== null && needed > room.free) {
    throw new OptimaError(
      'model.failed',
      `${source}: ${millions(onHeap)} million weights in float32${frozen.size === 0 ? '' : ', beside the frozen matrices outside,'} take ${gib(needed)} GiB with the least work space, and the engine's heap has ${gib(room.all)} GiB${inUse < leastBeside ? '' : `, of which ${gib(inUse)} are in use`}.`,
      {
        hint:
          frozen.size === 0
            ? `Take a model of at most ${millions((room.free - leastBeside) / 4)} million weights, or fewer models at once.`
            : 'Open fewer models at once, or a model with smaller vectors.',
      },
    );
  }
  const outside = bytesFrozen(config, frozen);
  if (outside <= machineBytes()) return;
  throw new OptimaError(
    'model.failed',
    `${source}: the frozen matrices of ${millions(parameterCount(config) - onHeap)} million weights take ${gib(outside)} GiB outside the engine's heap, and this machine has ${gib(machineBytes())} GiB.`,
    {
      hint: `Take a model of at most ${millions(machineBytes() / bytesPerNumber('bfloat16'))} million weights in bfloat16.`,
    },
  );
}

/** Bytes that this process may use at most. */
export function machineBytes(): number {
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(totalmem(), limit) : totalmem();
}

/** A 32-bit address reaches no further: what one thread can hold on its wasm heap. */
export const heapBytesAtMost = 2 ** 32;

/** What a policy holds unless told otherwise: see `LlamaOptions`. */
export const policyDefaults = { maxRows: 128, tokenBudget: 1024, memoryBytes: 2 ** 28 };

/** Float32 numbers in bytes. */
const bytes = (numbers: number): number => 4 * numbers;

/** A step packs copies of its matrices up to this, in machine code (src/tensor/wasm/heap-decoder.ts). */
const packedAtMost = 2 ** 29;

/** Numbers of the matrices that each token is multiplied by: the layers' and the head. */
export function countMatrices(config: LlamaConfig): number {
  const { vocab_size: vocab, hidden_size: d, tie_word_embeddings: tied } = config;
  return parameterCount(config) - (tied ? 0 : vocab * d);
}

/** Bytes of keys and values of one token. */
export function keyValueBytes({
  num_hidden_layers: layers,
  num_key_value_heads: kv,
  head_dim: dh,
}: LlamaConfig): number {
  return bytes(2 * layers * kv * dh);
}

/** Bytes of a policy that reads and writes: weights, the copies that a step reads, and what a pass of so many tokens works with. */
export const readingBytes = (config: LlamaConfig, tokensPerPass: number): number =>
  weightBytes(config) +
  Math.min(packedAtMost, bytes(countMatrices(config))) +
  readingWork(config, tokensPerPass);

/** Bytes of frozen weights: those of matrices outside the heap, of which a number has so many, and of the rest on the heap. */
export function splitFrozen(
  config: LlamaConfig,
  bytesPerNumber: number,
): { readonly outside: number; readonly inside: number } {
  const matrices = [...weightShapes(config)].filter(([, shape]) => shape.length === 2);
  const numbers = countIn(new Map(matrices));
  return { outside: bytesPerNumber * numbers, inside: weightBytes(config) - bytes(numbers) };
}

/** Bytes that a pass of so many tokens works with. */
export function readingWork(config: LlamaConfig, tokensPerPass: number): number {
  const { hidden_size: d, intermediate_size: f, vocab_size: vocab } = config;
  const { num_attention_heads: heads, num_key_value_heads: kv, head_dim: dh } = config;
  const perToken = d + Math.max(d, heads * dh) + (heads + 2 * kv) * dh + 2 * f;
  const logits = Math.min(2 ** 22, 64 * vocab);
  return bytes(tokensPerPass * perToken + 2 * logits);
}

/** One forward and backward pass. */
export interface PassSize {
  readonly rows: number;
  /** Tokens of a row, padding included. */
  readonly time: number;
  /** Tokens of all rows that count for the loss: each has a row of logits. */
  readonly counted: number;
  /** The adapter that is trained; absent: all weights are. */
  readonly lora?: LoraConfig | undefined;
}

/** Numbers of an adapter. */
export const adapterCount = (config: LlamaConfig, lora: LoraConfig): number =>
  countIn(factorShapes(config, lora));

/** Bytes of what a pass adds to the weights: kept activations, logits, gradients. */
export function passBytes(config: LlamaConfig, { rows, time, counted, lora }: PassSize): number {
  const { hidden_size: d, intermediate_size: f, vocab_size: vocab, num_hidden_layers: layers } = config;
  const { num_attention_heads: heads, num_key_value_heads: kv, head_dim: dh, tie_word_embeddings } = config;
  const n = rows * time;
  const [wide, narrow] = [heads * dh, kv * dh];
  // Causal, in strips of rows: little more than half of the square.
  const attention = rows * heads * ((time * (time + 64)) / 2);
  const kept =
    n * (3 * d + 2 * wide + 2 * narrow + 2 * f + (lora?.rank ?? 0) * (lora?.targets.length ?? 0)) + attention;
  const work = n * (3 * f + 5 * d + 2 * wide + 2 * narrow);
  const activations = lora?.recompute ? layers * n * d + kept : layers * (n * d + kept);
  // Where head and embedding are one, both gradients stand beside their sum.
  const whole = parameterCount(config) + (tie_word_embeddings ? 2 * vocab * d : 0);
  const gradients = lora === undefined ? whole : adapterCount(config, lora);
  return bytes(activations + work + 2 * counted * vocab + gradients);
}

/** Multiplications and additions of reading or writing one token behind `context` others. */
export function forwardOperations(config: LlamaConfig, context: number): number {
  const { num_hidden_layers: layers, num_attention_heads: heads, head_dim: dh } = config;
  return 2 * countMatrices(config) + 4 * layers * heads * dh * context;
}

const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);
const millions = (count: number): string => Math.floor(count / 1e6).toLocaleString('en');
