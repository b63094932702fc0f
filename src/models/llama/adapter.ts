// A LoRA adapter of a decoder: the names, shapes and first values of its factors, and how the forward pass reads them. What the
// numbers mean says domain/lora.ts, how they lie in files adapter-files.ts.
import { createHash16 } from '../../domain/hash.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import { type AdaptableMatrix, type LoraConfig, loraScale } from '../../domain/lora.ts';
import type { Rng } from '../../domain/rng.ts';
import {
  computeNumbers,
  type LayerAdapter,
  type LayerMatrix,
  type LowRank,
  layerMatrices,
  tf,
} from '../../tensor/index.ts';
import type { LlamaConfig } from './config.ts';
import { layerWeightName, type NamedArray, weightShapes } from './weights.ts';

/** The factors of every adapted matrix, and what they are for. */
export interface Adapter {
  readonly config: LoraConfig;
  /** By PEFT's names, without its prefix: `model.layers.0.self_attn.q_proj.lora_A.weight`. */
  readonly factors: ReadonlyMap<string, NamedArray>;
}

/** A matrix that is adapted. */
interface Place {
  readonly layer: number;
  readonly part: LayerMatrix;
  /** Of its weight. */
  readonly name: string;
}

/** What a weight's module is called within its layer: `q_proj`. */
const moduleOf = (weight: string): string => weight.split('.').at(-2)!;
const factorName = (weight: string, factor: 'A' | 'B'): string =>
  weight.replace(/weight$/, `lora_${factor}.weight`);

/** The adapted matrices, in the order of the forward pass. */
export const adaptedPlaces = (config: LlamaConfig, targets: readonly AdaptableMatrix[]): Place[] =>
  Array.from({ length: config.num_hidden_layers }, (_, layer) =>
    layerMatrices
      .map((part) => ({ layer, part, name: layerWeightName(layer, part) }))
      .filter(({ name }) => (targets as readonly string[]).includes(moduleOf(name))),
  ).flat();

/** Every factor's name and shape, in the order of the forward pass: A [r, in] and then B [out, r] of each matrix. */
export function factorShapes(
  config: LlamaConfig,
  { rank, targets }: LoraConfig,
): Map<string, readonly number[]> {
  const shapes = weightShapes(config);
  return new Map(
    adaptedPlaces(config, targets).flatMap(({ name }) => {
      const [out, inner] = shapes.get(name) as readonly [number, number];
      return [[factorName(name, 'A'), [rank, inner]] as const, [factorName(name, 'B'), [out, rank]] as const];
    }),
  );
}

/** An adapter of zeros: for what takes its numbers from elsewhere. */
export const emptyAdapter = (config: LlamaConfig, lora: LoraConfig): Adapter => ({
  config: lora,
  factors: new Map(
    [...factorShapes(config, lora)].map(([name, shape]) => [
      name,
      { shape, values: new Float32Array(shape.reduce((product, n) => product * n, 1)) },
    ]),
  ),
});

/** The highest rank of an adapter that no target is too narrow for: the shortest side of all. */
export function mostRank(config: LlamaConfig, targets: readonly AdaptableMatrix[]): number {
  const shapes = weightShapes(config);
  return Math.min(...adaptedPlaces(config, targets).flatMap(({ name }) => shapes.get(name)!));
}

/** An adapter that changes nothing: A uniform in ±1/√in (PEFT's, which is Kaiming's with a = √5), B zero. */
export function freshAdapter(config: LlamaConfig, lora: LoraConfig, rng: Rng): Adapter {
  const adapter = emptyAdapter(config, lora);
  for (const [name, { shape, values }] of adapter.factors) {
    if (!name.endsWith('lora_A.weight')) continue;
    const bound = 1 / Math.sqrt(shape[1]!);
    const own = rng.split(name);
    for (let i = 0; i < values.length; i++) values[i] = bound * (2 * own.next() - 1);
  }
  return adapter;
}

/** The terms of the adapted matrices, by layer. */
function layersOf(
  config: LlamaConfig,
  lora: LoraConfig,
  termAt: (place: Place) => LowRank,
): Partial<Record<LayerMatrix, LowRank>>[] {
  const layers = Array.from(
    { length: config.num_hidden_layers },
    (): Partial<Record<LayerMatrix, LowRank>> => ({}),
  );
  for (const place of adaptedPlaces(config, lora.targets)) layers[place.layer]![place.part] = termAt(place);
  return layers;
}

/**
 * The adapter's factors as a pass of training reads them, by layer, with s in B; `seed` says which numbers are dropped. Runs inside
 * the caller's tidy.
 */
export function arrangeAdapter(
  config: LlamaConfig,
  lora: LoraConfig,
  factors: ReadonlyMap<string, tf.Tensor>,
  seed?: string,
): LayerAdapter[] {
  const drops = seed !== undefined && lora.dropout > 0;
  return layersOf(config, lora, ({ name }) => ({
    a: factors.get(factorName(name, 'A')) as tf.Tensor2D,
    b: tf.mul(factors.get(factorName(name, 'B'))!, loraScale(lora)) as tf.Tensor2D,
    drop: drops ? (x) => tf.mul(x, dropoutMask(x.shape, lora.dropout, `${seed}/${name}`)) : undefined,
  }));
}

/** 0 with probability p, else 1 / (1 − p), for each number of a matrix: what it is follows from the key alone. */
function dropoutMask(shape: [number, number], p: number, key: string): tf.Tensor2D {
  const values = new Float32Array(shape[0] * shape[1]);
  const start = Number.parseInt(createHash16().update(key).digest().slice(0, 8), 16);
  const [limit, kept] = [Math.round(p * 2 ** 32), 1 / (1 - p)];
  for (let i = 0; i < values.length; i++) {
    // The finalizer of MurmurHash3 (Appleby, 2008), of a counter: millions of draws without a state.
    let bits = (start + Math.imul(i, 0x9e3779b9)) | 0;
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    bits ^= bits >>> 16;
    values[i] = bits >>> 0 < limit ? 0 : kept;
  }
  return tf.tensor2d(values, shape);
}

/** The factors with s in B, as they are read by what does not train. */
export class ScaledFactors {
  readonly layers: readonly LayerAdapter[];
  readonly #factors: ReadonlyMap<string, tf.Tensor>;
  readonly #scaled = new Map<string, tf.Variable>();
  readonly #scale: number;
  /** What the factors were when they were scaled: a variable that is assigned to gets other data. */
  #of: readonly object[] = [];

  constructor(config: LlamaConfig, lora: LoraConfig, factors: ReadonlyMap<string, tf.Tensor>) {
    this.#factors = factors;
    this.#scale = loraScale(lora);
    for (const { name } of adaptedPlaces(config, lora.targets)) {
      const b = factorName(name, 'B');
      this.#scaled.set(
        b,
        tf.tidy(() => tf.variable(tf.mul(factors.get(b)!, this.#scale), false)),
      );
    }
    this.#of = this.#data();
    this.layers = layersOf(config, lora, ({ name }) => ({
      a: factors.get(factorName(name, 'A')) as tf.Tensor2D,
      b: this.#scaled.get(factorName(name, 'B')) as tf.Tensor as tf.Tensor2D,
    }));
  }

  /** Scales again where a factor was changed. */
  refresh(): void {
    const data = this.#data();
    if (data.every((id, i) => id === this.#of[i])) return;
    for (const [name, b] of this.#scaled) {
      tf.tidy(() => b.assign(tf.mul(this.#factors.get(name)!, this.#scale)));
    }
    this.#of = data;
  }

  dispose(): void {
    for (const b of this.#scaled.values()) b.dispose();
  }

  readonly #data = (): object[] => [...this.#factors.values()].map(({ dataId }) => dataId);
}

/** W + s·B·A of every adapted matrix by the weights' names, each made when it is read. */
export function mergedMatrices(
  config: LlamaConfig,
  lora: LoraConfig,
  weights: ReadonlyMap<string, NamedArray>,
  factors: ReadonlyMap<string, tf.Tensor>,
): Map<string, NamedArray> {
  const merge = (name: string): Float32Array =>
    computeNumbers(() => {
      const [a, b] = (['A', 'B'] as const).map((factor) => factors.get(factorName(name, factor))!);
      const { shape, values } = weights.get(name)!;
      const term = tf.matMul(tf.mul(b!, loraScale(lora)), a!);
      return tf.add(tf.tensor(values, [...shape]), term);
    });
  return new Map(
    adaptedPlaces(config, lora.targets).map(({ name }) => [
      name,
      {
        shape: weights.get(name)!.shape,
        get values() {
          return merge(name);
        },
      },
    ]),
  );
}

/**
 * Names a policy that is a base with an adapter: the hash over the base's, what the adapter computes, and every factor's name,
 * shape and float32 bytes, in the order of the names.
 */
export function hashAdapted(base: PolicyHash, { config, factors }: Adapter): PolicyHash {
  const hash = createHash16().update(`adapter of ${base}\n${loraScale(config)}`);
  for (const name of [...factors.keys()].sort()) {
    const { shape, values } = factors.get(name)!;
    hash.update(`\n${name} ${JSON.stringify(shape)}\n`);
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return hash.digest() as PolicyHash;
}
