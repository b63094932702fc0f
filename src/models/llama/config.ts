// The architecture of a Llama-family decoder, as its config.json states it; read by every file beside this one.
import { z } from 'zod';
import { OptimaError } from '../../domain/errors.ts';

/** A size, and the most that any model has of it by far: what is larger would only use up the memory before it is refused. */
const count = (most: number) => z.int().positive().max(most);
const tokenId = z.int().nonnegative();

const schema = z
  .object({
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
    /** Context length, in tokens. */
    max_position_embeddings: count(2 ** 24).default(2048),
    /** Standard deviation of the matrices' first values; only `createPolicy` reads it. */
    initializer_range: z.number().positive().default(0.02),
    rms_norm_eps: z.number().positive().default(1e-6),
    /** Base of the rotary frequencies. */
    rope_theta: z.number().positive().optional(),
    /** How Transformers 5 writes `rope_theta`. */
    rope_parameters: z.object({ rope_theta: z.number().positive().optional() }).nullish(),
    /** Whether the embedding table is also the output projection. */
    tie_word_embeddings: z.boolean().default(false),
    bos_token_id: tokenId.nullish(),
    eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish(),
    pad_token_id: tokenId.nullish(),
  })
  .transform(({ rope_parameters, ...raw }) => ({
    ...raw,
    num_key_value_heads: raw.num_key_value_heads ?? raw.num_attention_heads,
    head_dim: raw.head_dim ?? raw.hidden_size / raw.num_attention_heads,
    rope_theta: raw.rope_theta ?? rope_parameters?.rope_theta ?? 10_000,
    bos_token_id: raw.bos_token_id ?? null,
    eos_token_id: raw.eos_token_id ?? null,
    pad_token_id: raw.pad_token_id ?? null,
  }));

/** A validated architecture under Hugging Face's names, every default filled in. */
export type LlamaConfig = Readonly<z.output<typeof schema>>;
/** What a config.json or a caller may leave out is optional here. */
export type LlamaConfigInput = z.input<typeof schema>;

/** Fields whose other values change the computation, with the only value this decoder computes. */
const fixedFields: Readonly<Record<string, unknown>> = {
  model_type: 'llama',
  hidden_act: 'silu',
  attention_bias: false,
  mlp_bias: false,
  pretraining_tp: 1,
  partial_rotary_factor: 1,
  quantization_config: null,
};

/**
 * Validates an architecture; `source` names it in errors. Throws `checkpoint.invalid` for a missing or
 * ill-typed field, and for a feature this decoder does not compute.
 */
export function parseLlamaConfig(value: unknown, source = 'Llama config'): LlamaConfig {
  const refuse = (problem: string, hint?: string): never => {
    throw new OptimaError('checkpoint.invalid', `${source}: ${problem}.`, hint === undefined ? {} : { hint });
  };
  if (typeof value !== 'object' || value === null) return refuse('not a JSON object');
  refuseUnsupported(value as Record<string, unknown>, refuse);
  const result = schema.safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0]!;
    return refuse(`field ${issue.path.join('.')}: ${issue.message}`);
  }
  const config = result.data;
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: width } = config;
  if (heads % kvHeads !== 0)
    refuse(`num_key_value_heads ${kvHeads} does not divide num_attention_heads ${heads}`);
  if (!Number.isInteger(width) || width % 2 !== 0) refuse(`head_dim ${width} is not an even integer`);
  for (const field of ['bos_token_id', 'eos_token_id', 'pad_token_id'] as const) {
    if ([config[field] ?? 0].flat().some((id) => id >= config.vocab_size)) {
      refuse(`${field} ${config[field]} is not below vocab_size ${config.vocab_size}`);
    }
  }
  return config;
}

function refuseUnsupported(
  raw: Record<string, unknown>,
  refuse: (problem: string, hint?: string) => never,
): void {
  const hint = 'Only plain Llama decoders are read: no biases, no scaled rotary embedding, no quantization.';
  const { architectures } = raw;
  if (architectures != null && !(Array.isArray(architectures) && architectures[0] === 'LlamaForCausalLM')) {
    refuse(`architectures is ${JSON.stringify(architectures)}, not ["LlamaForCausalLM"]`, hint);
  }
  for (const [field, expected] of Object.entries(fixedFields)) {
    if ((raw[field] ?? expected) !== expected)
      refuse(`${field} ${JSON.stringify(raw[field])} is not supported`, hint);
  }
  for (const field of ['rope_scaling', 'rope_parameters']) {
    const scaling = raw[field] as { rope_type?: string; type?: string } | null | undefined;
    const kind = scaling == null ? 'default' : (scaling.rope_type ?? scaling.type ?? 'default');
    if (kind !== 'default') refuse(`${field} of type ${JSON.stringify(kind)} is not supported`, hint);
  }
}

/**
 * One text for all that decides what the weights compute, whatever the order in which its fields were given.
 * How the weights were first drawn is not part of it.
 */
export function canonicalConfig({ initializer_range: _, ...architecture }: LlamaConfig): string {
  return JSON.stringify(architecture, Object.keys(architecture).sort());
}

/** The content of config.json for a checkpoint of this architecture with float32 weights. */
export function toConfigJson(config: LlamaConfig): Record<string, unknown> {
  return {
    architectures: ['LlamaForCausalLM'],
    ...fixedFields,
    partial_rotary_factor: undefined,
    quantization_config: undefined,
    ...config,
    rope_scaling: null,
    torch_dtype: 'float32',
  };
}
