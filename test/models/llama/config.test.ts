import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../../src/domain/errors.ts';
import { parseLlamaConfig, toConfigJson } from '../../../src/models/llama/config.ts';
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

test('features that this decoder does not compute are refused', () => {
  assertRefused({ architectures: ['MistralForCausalLM'] }, /architectures is \["MistralForCausalLM"\]/);
  assertRefused({ model_type: 'gpt2' }, /model_type "gpt2"/);
  assertRefused({ hidden_act: 'gelu' }, /hidden_act "gelu"/);
  assertRefused({ attention_bias: true }, /attention_bias true/);
  assertRefused({ mlp_bias: true }, /mlp_bias true/);
  assertRefused({ rope_scaling: { type: 'linear', factor: 2 } }, /rope_scaling of type "linear"/);
  assertRefused({ rope_scaling: { rope_type: 'llama3' } }, /rope_scaling of type "llama3"/);
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
