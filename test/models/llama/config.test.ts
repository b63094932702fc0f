import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../../src/domain/errors.ts';
import { canonicalConfig, parseLlamaConfig, toConfigJson } from '../../../src/models/llama/config.ts';
import { tinyConfig } from '../../support/llama.ts';

function assertRefused(change: Record<string, unknown>, pattern: RegExp): void {
  assert.throws(
    () => parseLlamaConfig({ ...tinyConfig, ...change }, 'x/config.json'),
    (error: unknown) => {
      assert.instance(error, OptimaError);
      assert.is((error as OptimaError).code, 'checkpoint.invalid');
      assert.match((error as OptimaError).message, pattern);
      assert.not.match((error as OptimaError).message, /\n/);
      return true;
    },
  );
}

test('what a config leaves out takes the defaults of Transformers', () => {
  const { num_key_value_heads: _, ...rest } = tinyConfig;
  const config = parseLlamaConfig({ ...rest, rms_norm_eps: undefined });
  assert.is(config.num_key_value_heads, 4);
  assert.is(config.head_dim, 8);
  assert.is(config.rms_norm_eps, 1e-6);
  assert.is(config.rope_theta, 10_000);
  assert.is(config.tie_word_embeddings, false);
});

test('a written config.json reads back as the same config', () => {
  const config = parseLlamaConfig({ ...tinyConfig, eos_token_id: [1, 2], rope_theta: 5e5 });
  assert.equal(parseLlamaConfig(JSON.parse(JSON.stringify(toConfigJson(config)))), config);
});

test('the rotary base is also read from where Transformers 5 writes it', () => {
  const rope_parameters = { rope_type: 'default', rope_theta: 2e5 };
  assert.is(parseLlamaConfig({ ...tinyConfig, rope_parameters }).rope_theta, 2e5);
});

test('each kind writes the fields of its own config.json, and no hash of a plain Llama knows of them', () => {
  const written = (model_type: string, more = {}) => {
    const config = parseLlamaConfig({ ...tinyConfig, model_type, ...more });
    const json = JSON.parse(JSON.stringify(toConfigJson(config)));
    assert.equal(parseLlamaConfig(json), config);
    return json;
  };
  assert.equal(written('qwen2').architectures, ['Qwen2ForCausalLM']);
  assert.not.ok('attention_bias' in written('qwen2', { attention_bias: true }));
  assert.is(written('qwen3', { attention_bias: true }).attention_bias, true);
  assert.is(written('mistral').sliding_window, null);
  assert.is(written('llama').mlp_bias, false);
  const keys = Object.keys(JSON.parse(canonicalConfig(parseLlamaConfig(tinyConfig))));
  for (const field of ['model_type', 'attention_bias', 'rope_scaling', 'sliding_window']) {
    assert.not.ok(keys.includes(field), field);
  }
});

test('what a kind leaves out means what it means to Transformers', () => {
  const { num_key_value_heads: _, max_position_embeddings: _most, ...rest } = tinyConfig;
  const heads = { num_attention_heads: 32, hidden_size: 64 };
  const of = (model_type: string) => parseLlamaConfig({ ...rest, ...heads, model_type });
  assert.is(of('mistral').num_key_value_heads, 8);
  assert.is(of('mistral').max_position_embeddings, 4096, 'its window');
  assert.is(of('qwen2').max_position_embeddings, 32_768);
  assert.is(of('qwen2').head_dim, 2);
  assert.is(of('qwen3').head_dim, 128);
  assert.is(of('llama').num_key_value_heads, 32);
});

test('a window that slides bounds the context, and one that does not is nothing', () => {
  const contextOf = (change: Record<string, unknown>) =>
    parseLlamaConfig({ ...tinyConfig, ...change }).max_position_embeddings;
  assert.is(contextOf({ model_type: 'mistral', sliding_window: 64 }), 64);
  assert.is(contextOf({ model_type: 'mistral', sliding_window: 4096 }), 128);
  assert.is(contextOf({ model_type: 'mistral', sliding_window: null }), 128);
  const qwen = { model_type: 'qwen2', sliding_window: 64, max_window_layers: 1 };
  assert.is(contextOf(qwen), 128);
  assert.is(contextOf({ ...qwen, use_sliding_window: true }), 64);
  assert.is(contextOf({ ...qwen, use_sliding_window: true, max_window_layers: 2 }), 128);
  const all = { use_sliding_window: true, layer_types: ['full_attention', 'full_attention'] };
  assert.is(contextOf({ ...qwen, ...all }), 128);
  assert.is(contextOf({ ...qwen, ...all, layer_types: ['full_attention', 'sliding_attention'] }), 64);
  assert.is(contextOf({ sliding_window: 64 }), 128, 'a Llama has none');
});

test('the frequencies may be scaled linearly, or as Llama 3.1 does', () => {
  const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const scalingOf = (change: Record<string, unknown>) =>
    parseLlamaConfig({ ...tinyConfig, ...change }).rope_scaling;
  assert.equal(scalingOf({ rope_scaling: { type: 'linear', factor: 2 } }), {
    rope_type: 'linear',
    factor: 2,
  });
  assert.equal(scalingOf({ rope_scaling: llama3 }), { ...llama3, original_max_position_embeddings: 128 });
  const rope_parameters = { ...llama3, rope_theta: 5e5, original_max_position_embeddings: 32 };
  const config = parseLlamaConfig({ ...tinyConfig, rope_parameters });
  assert.is(config.rope_theta, 5e5);
  assert.is(
    config.rope_scaling?.rope_type === 'llama3' && config.rope_scaling.original_max_position_embeddings,
    32,
  );
  const texts = [{ rope_scaling: { type: 'linear', factor: 2 } }, { rope_scaling: llama3 }, {}].map(
    (change) => canonicalConfig(parseLlamaConfig({ ...tinyConfig, ...change })),
  );
  assert.is(new Set(texts).size, 3, 'the hash knows of them');
  assertRefused({ rope_scaling: { ...llama3, factor: undefined } }, /field rope_scaling\.factor/);
  assertRefused({ rope_scaling: { ...llama3, high_freq_factor: 1 } }, /high_freq_factor is not above/);
  assertRefused({ rope_scaling: { ...llama3, mrope_section: [1] } }, /mrope_section/);
  assertRefused({ rope_parameters: { full_attention: llama3 } }, /a field full_attention/);
});

test('features that this decoder does not compute are refused', () => {
  assertRefused({ architectures: ['MistralForCausalLM'] }, /architectures is \["MistralForCausalLM"\]/);
  assertRefused({ model_type: 'gpt2' }, /model_type "gpt2"/);
  assertRefused({ hidden_act: 'gelu' }, /hidden_act "gelu"/);
  assertRefused({ mlp_bias: true }, /mlp_bias true/);
  assertRefused({ model_type: 'qwen3_moe' }, /model_type "qwen3_moe"/);
  assertRefused({ model_type: 'toString' }, /model_type "toString"/);
  assertRefused({ model_type: 'qwen2', architectures: ['Qwen2ForSequenceClassification'] }, /architectures/);
  assertRefused({ model_type: 'qwen2', layer_types: ['chunked_attention'] }, /field layer_types/);
  assertRefused({ partial_rotary_factor: 0.5 }, /partial_rotary_factor 0.5/);
  assertRefused({ rope_parameters: { partial_rotary_factor: 0.5 } }, /rope_parameters.partial_rotary_factor/);
  assertRefused({ rope_scaling: { type: 'dynamic', factor: 2 } }, /rope_scaling of type "dynamic"/);
  assertRefused({ rope_parameters: { rope_type: 'yarn' } }, /rope_parameters of type "yarn"/);
  assertRefused({ quantization_config: { bits: 4 } }, /quantization_config/);
});

test('impossible shapes and ill-typed fields are refused by name', () => {
  assertRefused({ num_key_value_heads: 3 }, /num_key_value_heads 3 does not divide/);
  assertRefused({ hidden_size: 18 }, /head_dim 4.5/);
  assertRefused({ head_dim: 5 }, /head_dim 5/);
  assertRefused({ hidden_size: '16' }, /x\/config\.json: field hidden_size/);
  assertRefused({ vocab_size: undefined }, /field vocab_size/);
  assertRefused({ eos_token_id: [1, 40] }, /eos_token_id 1,40 is not below vocab_size 40/);
  assert.throws(() => parseLlamaConfig(null), /not a JSON object/);
});

test.run();
