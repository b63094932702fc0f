// The architecture of a Llama-family decoder, as its config.json states it, and what each kind of checkpoint means by that
// file; read by every file beside this one.
import { z } from 'zod';
import { OptimaError } from '../../domain/errors.ts';
import type { OptionalLayerPart } from '../../tensor/index.ts';

/** A size, and the most that any model has of it by far: what is larger would only use up the memory before it is refused. */
const count = (most: number) => z.int().positive().max(most);
const tokenId = z.int().nonnegative();
const positive = z.number().positive();
const contextLength = count(2 ** 24);

/** How the rotary frequencies may differ from θ^(−2i/dh), by `rope_type`: see rotary.ts. */
const ropeScalings = {
  linear: z.strictObject({ factor: z.number().min(1) }),
  llama3: z.strictObject({
    factor: z.number().min(1),
    low_freq_factor: positive,
    high_freq_factor: positive,
    original_max_position_embeddings: contextLength,
  }),
};
type RopeType = keyof typeof ropeScalings;
export type RopeScaling = {
  [Type in RopeType]: Readonly<{ rope_type: Type } & z.output<(typeof ropeScalings)[Type]>>;
}[RopeType];

/** As files have it, some with `type` in the place of `rope_type`. */
const ropeFields = z.looseObject({
  rope_theta: positive.nullish(),
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  partial_rotary_factor: z.literal(1).nullish(),
});

const schema = z.object({
  model_type: z.enum(['llama', 'mistral', 'qwen2', 'qwen3']).default('llama'),
  /** Rows of the embedding table; at least the tokenizer's vocabulary. */
  vocab_size: count(2 ** 22),
  /** d: width of the residual stream. */
  hidden_size: count(2 ** 17),
  /** f: width of the feed-forward layer. */
  intermediate_size: count(2 ** 20),
  num_hidden_layers: count(2 ** 10),
  num_attention_heads: count(2 ** 12),
  /** Key/value heads, a divisor of `num_attention_heads`. Default: as many. */
  num_key_value_heads: count(2 ** 12).nullish(),
  /** Width of a head, even. Default: `hidden_size / num_attention_heads`. */
  head_dim: count(2 ** 13).nullish(),
  /** Context length, in tokens; no more than sees itself whole where a kind has sliding windows. */
  max_position_embeddings: contextLength.default(2048),
  /** Standard deviation of the matrices' first values; only `createPolicy` reads it. */
  initializer_range: positive.default(0.02),
  rms_norm_eps: positive.default(1e-6),
  /** Whether queries, keys, values and the attention's output have biases, where the kind leaves it open. */
  attention_bias: z.boolean().default(false),
  /** Base of the rotary frequencies. */
  rope_theta: positive.nullish(),
  rope_scaling: ropeFields.nullish(),
  /** How Transformers 5 writes both. */
  rope_parameters: ropeFields.nullish(),
  /** Whether the embedding table is also the output projection. */
  tie_word_embeddings: z.boolean().default(false),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
  pad_token_id: tokenId.nullish(),
  /** Tokens that one sees, itself included, in layers whose window slides. */
  sliding_window: contextLength.nullish(),
  use_sliding_window: z.boolean().nullish(),
  /** The first layer whose window slides, where `layer_types` does not say which do. */
  max_window_layers: z.int().nonnegative().nullish(),
  layer_types: z.array(z.enum(['full_attention', 'sliding_attention'])).nullish(),
});
type RawConfig = z.output<typeof schema>;

/** What a config.json or a caller may leave out is optional here. */
export type LlamaConfigInput = z.input<typeof schema>;

/** A validated architecture under Hugging Face's names, every default filled in. */
export type LlamaConfig = Readonly<
  Omit<
    RawConfig,
    `${string}sliding_window` | 'max_window_layers' | 'layer_types' | 'rope_parameters' | 'rope_scaling'
  > & {
    num_key_value_heads: number;
    head_dim: number;
    rope_theta: number;
    rope_scaling: RopeScaling | null;
    bos_token_id: number | null;
    eos_token_id: number | number[] | null;
    pad_token_id: number | null;
  }
>;

/** A kind of checkpoint. */
interface Family {
  readonly architecture: string;
  /** What its config.json means where it leaves fields out, as far as other kinds mean something else. */
  readonly defaults: Readonly<Partial<RawConfig>>;
  /** Fields whose other values change the computation, with the only value that this decoder computes. */
  readonly fixed: Readonly<Record<string, unknown>>;
  /** What of a layer it has that plain Llama has not. */
  readonly parts: (hasAttentionBias: boolean) => readonly OptionalLayerPart[];
  /** Whether `attention_bias` is a field of its config.json. */
  readonly asksForBias: boolean;
  /** Tokens that one sees in the layer that sees least; null: all. */
  readonly window: (config: RawConfig) => number | null | undefined;
}

const inputBiases = ['queryBias', 'keyBias', 'valueBias'] as const;
const allBiases = (has: boolean) => (has ? ([...inputBiases, 'outputBias'] as const) : []);

/** Both kinds of Qwen name the layers whose window slides. */
function qwenWindow(config: RawConfig): number | null | undefined {
  const { max_window_layers, layer_types: types, num_hidden_layers: layers } = config;
  const slides = types?.includes('sliding_attention') ?? layers > (max_window_layers ?? 28);
  return config.use_sliding_window === true && slides ? (config.sliding_window ?? 4096) : null;
}

/** By `model_type`. SmolLM, SmolLM2 and TinyLlama are of Llama's kind, Qwen 2.5 of Qwen 2's. */
const families: Readonly<Record<LlamaConfig['model_type'], Family>> = {
  llama: {
    architecture: 'LlamaForCausalLM',
    defaults: {},
    fixed: { hidden_act: 'silu', mlp_bias: false, pretraining_tp: 1 },
    parts: allBiases,
    asksForBias: true,
    window: () => null,
  },
  mistral: {
    architecture: 'MistralForCausalLM',
    defaults: { max_position_embeddings: 2 ** 17, num_key_value_heads: 8, sliding_window: 4096 },
    fixed: { hidden_act: 'silu' },
    parts: () => [],
    asksForBias: false,
    window: (config) => config.sliding_window,
  },
  qwen2: {
    architecture: 'Qwen2ForCausalLM',
    defaults: { max_position_embeddings: 2 ** 15, num_key_value_heads: 32 },
    fixed: { hidden_act: 'silu' },
    parts: () => inputBiases,
    asksForBias: false,
    window: qwenWindow,
  },
  qwen3: {
    architecture: 'Qwen3ForCausalLM',
    defaults: { max_position_embeddings: 2 ** 15, num_key_value_heads: 32, head_dim: 128 },
    fixed: { hidden_act: 'silu' },
    parts: (hasAttentionBias) => [...allBiases(hasAttentionBias), 'queryNorm', 'keyNorm'],
    asksForBias: true,
    window: qwenWindow,
  },
};

/** The parts of a layer that this model has beside those that all have. */
export const optionalParts = ({ model_type, attention_bias }: LlamaConfig): readonly OptionalLayerPart[] =>
  families[model_type].parts(attention_bias);

type Refuse = (problem: string, hint?: string) => never;

/**
 * Validates an architecture; `source` names it in errors. Throws `checkpoint.invalid` for a missing or ill-typed field, and,
 * by name, for what this decoder does not compute. A window that slides bounds the context: within it it changes nothing.
 */
export function parseLlamaConfig(value: unknown, source = 'Llama config'): LlamaConfig {
  const refuse: Refuse = (problem, hint) => {
    throw new OptimaError('checkpoint.invalid', `${source}: ${problem}.`, hint === undefined ? {} : { hint });
  };
  if (typeof value !== 'object' || value === null) return refuse('not a JSON object');
  const family = familyOf(value as Record<string, unknown>, refuse);
  const result = schema.safeParse({ ...family.defaults, ...value });
  if (!result.success) return refuse(firstIssue(result.error));
  const { rope_parameters, sliding_window, use_sliding_window, max_window_layers, layer_types, ...raw } =
    result.data;
  const { num_attention_heads: heads, num_key_value_heads: kvHeads = null } = raw;
  const config = {
    ...raw,
    ...ropeOf(result.data, refuse),
    attention_bias: family.asksForBias && raw.attention_bias,
    num_key_value_heads: kvHeads ?? heads,
    head_dim: raw.head_dim ?? raw.hidden_size / heads,
    max_position_embeddings: Math.min(
      raw.max_position_embeddings,
      family.window(result.data) ?? Number.POSITIVE_INFINITY,
    ),
    bos_token_id: raw.bos_token_id ?? null,
    eos_token_id: raw.eos_token_id ?? null,
    pad_token_id: raw.pad_token_id ?? null,
  };
  requirePossible(config, refuse);
  return config;
}

const firstIssue = ({ issues: [issue] }: z.ZodError, within: readonly string[] = []): string =>
  `field ${[...within, ...issue!.path].join('.')}: ${issue!.message}`;

function requirePossible(config: LlamaConfig, refuse: Refuse): void {
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: width } = config;
  if (heads % kvHeads !== 0)
    refuse(`num_key_value_heads ${kvHeads} does not divide num_attention_heads ${heads}`);
  if (!Number.isInteger(width) || width % 2 !== 0) refuse(`head_dim ${width} is not an even integer`);
  for (const field of ['bos_token_id', 'eos_token_id', 'pad_token_id'] as const) {
    if ([config[field] ?? 0].flat().some((id) => id >= config.vocab_size)) {
      refuse(`${field} ${config[field]} is not below vocab_size ${config.vocab_size}`);
    }
  }
}

/** The kind of checkpoint. Refuses, by name, another kind and what of this one is not computed. */
function familyOf(raw: Record<string, unknown>, refuse: Refuse): Family {
  const { model_type: type = 'llama', architectures } = raw;
  if (typeof type !== 'string' || !Object.hasOwn(families, type)) {
    return refuse(
      `model_type ${JSON.stringify(type)} is not supported`,
      `Read are the kinds ${Object.keys(families).join(', ')}; that is also how SmolLM2, TinyLlama and Qwen2.5 call themselves.`,
    );
  }
  const family = families[type as keyof typeof families];
  const { architecture, fixed } = family;
  if (architectures != null && !(Array.isArray(architectures) && architectures[0] === architecture)) {
    refuse(
      `architectures is ${JSON.stringify(architectures)}, not ["${architecture}"]`,
      'Only decoders that predict the next token are read, and of each model_type only its own.',
    );
  }
  // What Transformers itself would do something about, whatever the kind.
  const anywhere = { partial_rotary_factor: 1, quantization_config: null };
  for (const [field, expected] of Object.entries({ ...fixed, ...anywhere })) {
    if ((raw[field] ?? expected) === expected) continue;
    refuse(
      `${field} ${JSON.stringify(raw[field])} is not supported`,
      field === 'quantization_config'
        ? 'Give a checkpoint with weights in float32, float16 or bfloat16.'
        : `Of the kind ${type} only ${JSON.stringify(expected)} is computed.`,
    );
  }
  return family;
}

/** The rotary embedding's fields, wherever a file has them. */
function ropeOf(raw: RawConfig, refuse: Refuse): Pick<LlamaConfig, 'rope_theta' | 'rope_scaling'> {
  const field = raw.rope_scaling != null ? 'rope_scaling' : 'rope_parameters';
  const { rope_theta, rope_type, type, partial_rotary_factor: _, ...rest } = raw[field] ?? {};
  const theta = rope_theta ?? raw.rope_theta ?? raw.rope_parameters?.rope_theta ?? 10_000;
  const name = rope_type ?? type ?? 'default';
  if (name !== 'default' && !Object.hasOwn(ropeScalings, name)) {
    refuse(
      `${field} of type ${JSON.stringify(name)} is not supported`,
      'Read are default, linear and llama3. Where it only lengthens the context, leave it out for texts of the original length.',
    );
  }
  if (name === 'default') {
    const stray = Object.keys(rest)[0];
    if (stray !== undefined) refuse(`${field} has a field ${stray}, which its type default does not know`);
    return { rope_theta: theta, rope_scaling: null };
  }
  const original_max_position_embeddings = raw.max_position_embeddings;
  const defaults = name === 'llama3' ? { original_max_position_embeddings } : {};
  const result = ropeScalings[name as RopeType].safeParse({ ...defaults, ...rest });
  if (!result.success) return refuse(firstIssue(result.error, [field]));
  const scaling = { rope_type: name, ...result.data } as RopeScaling;
  if (scaling.rope_type === 'llama3' && scaling.high_freq_factor <= scaling.low_freq_factor) {
    refuse(`${field}: high_freq_factor is not above low_freq_factor`);
  }
  return { rope_theta: theta, rope_scaling: scaling };
}

/**
 * One text for all that decides what the weights compute, whatever the order in which its fields were given. How the weights
 * were first drawn is not part of it, nor what the weights' names say: the kind, and which parts its layers have.
 */
export function canonicalConfig(config: LlamaConfig): string {
  const { initializer_range: _r, model_type: _t, attention_bias: _b, rope_scaling, ...architecture } = config;
  const textOf = (fields: object) => JSON.stringify(fields, Object.keys(fields).sort());
  return textOf(architecture) + (rope_scaling === null ? '' : textOf(rope_scaling));
}

/** The content of config.json for a checkpoint of this architecture with float32 weights. */
export function toConfigJson({ attention_bias, ...config }: LlamaConfig): Record<string, unknown> {
  const { architecture, fixed, asksForBias } = families[config.model_type];
  return {
    architectures: [architecture],
    ...fixed,
    ...(asksForBias && { attention_bias }),
    ...config,
    // No window slides within the context.
    ...(config.model_type === 'mistral' && { sliding_window: null }),
    torch_dtype: 'float32',
  };
}
