// A decoder's weights: their Hugging Face names and shapes, their first values, and the structure the forward
// pass reads.
import { createHash16, type Hash16 } from '../../domain/hash.ts';
import type { PolicyHash } from '../../domain/ids.ts';
import type { Rng } from '../../domain/rng.ts';
import type { DecoderWeights, FrozenMatrix, LayerWeights, Matrix, tf } from '../../tensor/index.ts';
import { canonicalConfig, type LlamaConfig, optionalParts } from './config.ts';

/** Values of one weight, row-major. */
export interface NamedArray {
  readonly shape: readonly number[];
  readonly values: Float32Array;
}

/** In the order of the forward pass. */
const layerNames: Readonly<Record<keyof LayerWeights, string>> = {
  inputNorm: 'input_layernorm.weight',
  query: 'self_attn.q_proj.weight',
  queryBias: 'self_attn.q_proj.bias',
  queryNorm: 'self_attn.q_norm.weight',
  key: 'self_attn.k_proj.weight',
  keyBias: 'self_attn.k_proj.bias',
  keyNorm: 'self_attn.k_norm.weight',
  value: 'self_attn.v_proj.weight',
  valueBias: 'self_attn.v_proj.bias',
  output: 'self_attn.o_proj.weight',
  outputBias: 'self_attn.o_proj.bias',
  postNorm: 'post_attention_layernorm.weight',
  gate: 'mlp.gate_proj.weight',
  up: 'mlp.up_proj.weight',
  down: 'mlp.down_proj.weight',
};

/** The Hugging Face name of what a layer has. */
export const layerWeightName = (layer: number, part: keyof LayerWeights): string =>
  `model.layers.${layer}.${layerNames[part]}`;

/** Every weight's Hugging Face name and shape, in the order of the forward pass. */
export function weightShapes(config: LlamaConfig): Map<string, readonly number[]> {
  const { vocab_size: vocab, hidden_size: d, intermediate_size: f, head_dim: dh } = config;
  const queryWidth = config.num_attention_heads * dh;
  const keyWidth = config.num_key_value_heads * dh;
  const optionalShapes = {
    ...{ queryBias: [queryWidth], keyBias: [keyWidth], valueBias: [keyWidth], outputBias: [d] },
    ...{ queryNorm: [dh], keyNorm: [dh] },
  };
  const layerShapes: Partial<Record<keyof LayerWeights, readonly number[]>> = {
    inputNorm: [d],
    query: [queryWidth, d],
    key: [keyWidth, d],
    value: [keyWidth, d],
    output: [d, queryWidth],
    postNorm: [d],
    gate: [f, d],
    up: [f, d],
    down: [d, f],
    ...Object.fromEntries(optionalParts(config).map((part) => [part, optionalShapes[part]])),
  };
  const shapes = new Map<string, readonly number[]>([['model.embed_tokens.weight', [vocab, d]]]);
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    for (const part of Object.keys(layerNames) as (keyof LayerWeights)[]) {
      const shape = layerShapes[part];
      if (shape !== undefined) shapes.set(layerWeightName(layer, part), shape);
    }
  }
  shapes.set('model.norm.weight', [d]);
  if (!config.tie_word_embeddings) shapes.set('lm_head.weight', [vocab, d]);
  return shapes;
}

/**
 * Random first values: norms 1, biases 0, matrices N(0, initializer_range²), and the two projections that write into the residual
 * stream smaller by 1/√(2L), so that its variance does not grow with depth (GPT-2, Radford et al. 2019, §2.3).
 */
export function initialWeights(config: LlamaConfig, rng: Rng): Map<string, NamedArray> {
  const weights = new Map<string, NamedArray>();
  for (const [name, shape] of weightShapes(config)) {
    const values = new Float32Array(shape.reduce((product, n) => product * n, 1));
    if (shape.length === 1) {
      if (!name.endsWith('.bias')) values.fill(1);
    } else {
      const residual = /(o_proj|down_proj)\.weight$/.test(name);
      const range = config.initializer_range;
      const deviation = residual ? range / Math.sqrt(2 * config.num_hidden_layers) : range;
      fillNormal(values, deviation, rng.split(name));
    }
    weights.set(name, { shape, values });
  }
  return weights;
}

/** Fills with draws from N(0, deviation²), two at a time (Box and Muller, 1958). */
function fillNormal(values: Float32Array, deviation: number, rng: Rng): void {
  for (let i = 0; i < values.length; i += 2) {
    // 1 − u lies in (0, 1], where the logarithm is finite.
    const radius = deviation * Math.sqrt(-2 * Math.log(1 - rng.next()));
    const angle = 2 * Math.PI * rng.next();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
  }
}

/** Arranges weights by name as the forward pass reads them. Throws a RangeError when one is missing. */
export function arrangeWeights(
  config: LlamaConfig,
  parameters: ReadonlyMap<string, tf.Tensor | FrozenMatrix>,
): DecoderWeights {
  const named = <T extends tf.Tensor | FrozenMatrix>(name: string): T => {
    const weight = parameters.get(name);
    if (weight === undefined) throw new RangeError(`The weights lack ${name}.`);
    return weight as T;
  };
  const embedding = named<Matrix>('model.embed_tokens.weight');
  const layers = Array.from({ length: config.num_hidden_layers }, (_, layer): LayerWeights => {
    const vector = (part: keyof LayerWeights) => named<tf.Tensor1D>(layerWeightName(layer, part));
    const optional = optionalParts(config).map((part) => [part, vector(part)]);
    const matrix = (part: keyof LayerWeights) => named<Matrix>(layerWeightName(layer, part));
    return {
      inputNorm: vector('inputNorm'),
      query: matrix('query'),
      key: matrix('key'),
      value: matrix('value'),
      output: matrix('output'),
      postNorm: vector('postNorm'),
      gate: matrix('gate'),
      up: matrix('up'),
      down: matrix('down'),
      ...Object.fromEntries(optional),
    };
  });
  const head = config.tie_word_embeddings ? embedding : named<Matrix>('lm_head.weight');
  return { embedding, layers, norm: named<tf.Tensor1D>('model.norm.weight'), head };
}

/** What of a policy's name stands for neither the architecture nor the weights: its tokenizer, chat template and stops. */
export const frameOf = (tokenizer: string, generation: unknown): string =>
  JSON.stringify([tokenizer, generation]);

/**
 * Starts the hash that names a policy by all that decides what it says: over the architecture, `frame` (see `frameOf`), and every
 * weight's name, shape and float32 bytes, in the order of the names; these the caller adds, `hashTensor` and then the bytes.
 */
export const startPolicyHash = (config: LlamaConfig, frame: string, hash: Hash16 = createHash16()): Hash16 =>
  hash.update(canonicalConfig(config)).update(`\n${frame}`);

/** Adds a tensor to a hash, all but its bytes. */
export const hashTensor = (hash: Hash16, name: string, shape: readonly number[]): Hash16 =>
  hash.update(`\n${name} ${JSON.stringify(shape)}\n`);

/** Names a policy: see `startPolicyHash`. */
export function hashPolicy(
  config: LlamaConfig,
  weights: ReadonlyMap<string, NamedArray>,
  frame: string,
): PolicyHash {
  const hash = startPolicyHash(config, frame);
  for (const name of [...weights.keys()].sort()) {
    const { shape, values } = weights.get(name)!;
    hashTensor(hash, name, shape).update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return hash.digest() as PolicyHash;
}

/** Whether one shape is the other. */
export const isShape = (shape: readonly number[], asked: readonly number[]): boolean =>
  shape.length === asked.length && shape.every((n, axis) => n === asked[axis]);
