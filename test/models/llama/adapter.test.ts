// LoRA adapters: what they compute, what of them is trained, and their files.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../../src/domain/errors.ts';
import { adaptableMatrices, type LoraConfig, loraTargets } from '../../../src/domain/lora.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { freshAdapter, type LlamaPolicy, loadPolicy } from '../../../src/models/llama/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { lettersTokenizer } from '../../support/letters.ts';
import { checkGradients, createTinyPolicy, request } from '../../support/llama.ts';

const root = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-adapter-'));
test.before(async () => {
  await startEngine();
});
test.after(() => fs.rmSync(root, { recursive: true }));

const lora: LoraConfig = { rank: 3, alpha: 5, dropout: 0, targets: adaptableMatrices };
const ids = Array.from({ length: 2 }, (_, row) =>
  Array.from({ length: 9 }, (_, i) => 5 + ((7 * i + row) % 30)),
);
const logitsOf = (policy: Pick<LlamaPolicy, 'computeLogits'>) =>
  tf.tidy(() => policy.computeLogits(tf.tensor2d(ids, [2, 9], 'int32')).dataSync<'float32'>());
const difference = (one: readonly number[] | Float32Array, other: readonly number[] | Float32Array) =>
  Math.max(...one.map((value, i) => Math.abs(value - other[i]!)));

/** A policy with an adapter whose factors are all random. */
function adapted(base: LlamaPolicy, config: Partial<LoraConfig> = {}, seed = 3): LlamaPolicy {
  const adapter = freshAdapter(base.config, { ...lora, ...config }, createRng(seed));
  const rng = createRng(seed).split('b');
  for (const { values } of adapter.factors.values())
    for (let i = 0; i < values.length; i++) values[i] = rng.next() - 0.5;
  return base.withAdapter(adapter);
}

const refusal = (work: Promise<LlamaPolicy>): Promise<OptimaError> =>
  work.then(
    (policy) => {
      policy.dispose();
      throw new Error('It was loaded.');
    },
    (error) => error,
  );

test('a fresh adapter changes nothing; its A is drawn within 1/√in, each matrix for itself', () => {
  const base = createTinyPolicy();
  const adapter = freshAdapter(base.config, lora, createRng(1));
  const policy = base.withAdapter(adapter);
  assert.equal(logitsOf(policy), logitsOf(base));
  assert.is.not(policy.hash, base.hash);
  assert.is(adapter.factors.size, 2 * 7 * 2);
  const firsts = new Set<number>();
  for (const [name, { shape, values }] of adapter.factors) {
    if (name.endsWith('lora_B.weight')) assert.ok(values.every((value) => value === 0));
    else {
      const bound = 1 / Math.sqrt(shape[1]!);
      const largest = Math.max(...values.map(Math.abs));
      assert.ok(largest <= bound && largest > 0.8 * bound, `${name}: ${largest} of ${bound}`);
      firsts.add(values[0]!);
    }
  }
  assert.is(firsts.size, 14);
  policy.dispose();
  base.dispose();
});

test('what a policy with an adapter computes, says and scores is what its merged weights do', async () => {
  for (const targets of [adaptableMatrices, loraTargets('attention')!, loraTargets('down_proj')!]) {
    for (const rankStabilized of [false, true]) {
      const base = createTinyPolicy();
      const policy = adapted(base, { targets, rankStabilized });
      const merged = policy.merge();
      assert.ok(difference(logitsOf(policy), logitsOf(base)) > 0.1);
      assert.ok(difference(logitsOf(policy), logitsOf(merged)) < 1e-3);
      assert.is(merged.lora, null);
      const said = async (one: LlamaPolicy) => (await one.generate([request('abcabc')]))[0]!;
      const [own, other] = [await said(policy), await said(merged)];
      assert.equal(own.tokenIds, other.tokenIds);
      assert.ok(difference(own.logprobs, other.logprobs) < 1e-4);
      assert.is.not(policy.hash, merged.hash);
      for (const one of [merged, policy, base]) one.dispose();
    }
  }
});

test('merged weights are written as they are merged in memory', async () => {
  const base = createTinyPolicy();
  const policy = adapted(base);
  const merged = policy.merge();
  const folder = path.join(root, 'merged');
  fs.mkdirSync(folder);
  await policy.writeMerged(folder);
  const written = await loadPolicy(folder, { tokenizer: lettersTokenizer, frozen: true });
  assert.is(written.hash, merged.hash);
  for (const one of [written, merged, policy, base]) one.dispose();
});

test('what reads goes on from the factors as they are', async () => {
  const base = createTinyPolicy();
  const policy = adapted(base);
  const logprobs = async () => (await policy.generate([request('abc')]))[0]!.logprobs;
  const before = await logprobs();
  const [factor] = policy.parameters.values();
  tf.tidy(() => factor!.assign(tf.mul(factor!, -2)));
  policy.refreshHash();
  assert.not.equal(await logprobs(), before);
  for (const one of [policy, base]) one.dispose();
});

test('every factor has a gradient, and it matches a finite difference', () => {
  for (const dropout of [0, 0.4]) {
    const base = createTinyPolicy({}, { gain: 5 });
    const policy = adapted(base, { dropout });
    const input = tf.tensor2d(ids, [2, 9], 'int32');
    const loss = () => tf.mean(tf.square(policy.inTraining('seed').computeLogits(input))) as tf.Scalar;
    checkGradients(policy.parameters, loss, 2e-6);
    input.dispose();
    for (const one of [policy, base]) one.dispose();
  }
});

test('layers that are computed again on the way back keep less, and give the same to the bit', () => {
  const base = createTinyPolicy();
  const computed = [false, true].map((recompute) => {
    const policy = adapted(base, { recompute });
    const input = tf.tensor2d(
      Array.from({ length: 400 }, (_, i) => 5 + ((i * i) % 30)),
      [4, 100],
      'int32',
    );
    let held = 0;
    const loss = () => {
      const before = tf.memory().numBytes;
      const value = tf.mean(tf.square(policy.inTraining('seed').computeLogits(input))) as tf.Scalar;
      held = tf.memory().numBytes - before;
      return value;
    };
    const tensors = tf.memory().numTensors;
    const { grads, value } = tf.variableGrads(loss, [...policy.parameters.values()]);
    assert.is(tf.memory().numTensors - tensors, 1 + policy.parameters.size);
    const gradients = [...policy.parameters.values()].map(({ name }) => grads[name]!.dataSync<'float32'>());
    const numbers = [value.dataSync<'float32'>(), ...gradients];
    tf.dispose([input, value, grads]);
    policy.dispose();
    return { numbers, held };
  });
  const [whole, again] = computed;
  assert.equal(again!.numbers, whole!.numbers);
  assert.ok(again!.held < 0.5 * whole!.held, `${again!.held} of ${whole!.held} bytes`);
  base.dispose();
});

test('dropout follows from the seed, drops its share, and is off outside of training', () => {
  const base = createTinyPolicy();
  const policy = adapted(base, { dropout: 0.5 });
  const plain = adapted(base, { dropout: 0 });
  assert.equal(logitsOf(policy), logitsOf(plain));
  assert.is(policy.hash, plain.hash, 'it is no part of what a policy says');
  const [one, again, other] = ['a', 'a', 'b'].map((seed) => logitsOf(policy.inTraining(seed)));
  assert.equal(one, again);
  assert.ok(difference(one!, other!) > 0.01);
  assert.ok(difference(one!, logitsOf(plain)) > 0.01);
  const mean = Array.from({ length: 200 }, (_, i) => logitsOf(policy.inTraining(`${i}`))).reduce(
    (sum, logits) => sum.map((value, i) => value + logits[i]! / 200),
    new Float32Array(one!.length),
  );
  assert.ok(
    difference(mean, logitsOf(plain)) < difference(one!, logitsOf(plain)),
    'it goes to the plain one in the mean',
  );
  for (const one of [policy, plain, base]) one.dispose();
});

test('an adapter is saved without its base and comes back with it, whose hash it knows', async () => {
  const whole = path.join(root, 'base');
  const folder = path.join(root, 'adapter');
  const made = createTinyPolicy();
  await made.save(whole);
  made.dispose();
  const tensors = tf.memory().numTensors;
  const base = await loadPolicy(whole, { tokenizer: lettersTokenizer });
  const policy = adapted(base);
  const hash = await policy.save(folder);
  assert.is(hash, policy.hash);
  assert.equal(fs.readdirSync(folder).sort(), [
    'adapter_config.json',
    'adapter_model.safetensors',
    'optima.json',
  ]);
  const config = JSON.parse(fs.readFileSync(path.join(folder, 'adapter_config.json'), 'utf8'));
  assert.is(config.base_model_name_or_path, whole);

  const shared = await loadPolicy(folder, { base, hash });
  assert.is(shared.weights, base.weights);
  assert.equal(logitsOf(shared), logitsOf(policy));
  const alone = await loadPolicy(folder, { tokenizer: lettersTokenizer, hash });
  assert.is.not(alone.weights, base.weights);
  assert.equal(logitsOf(alone), logitsOf(policy));
  for (const one of [alone, shared, policy, base]) one.dispose();
  assert.is(tf.memory().numTensors, tensors);
});

test('an adapter of another base, damaged or of a kind that is not computed is refused in one line', async () => {
  const folder = path.join(root, 'adapter');
  const base = await loadPolicy(path.join(root, 'base'), { tokenizer: lettersTokenizer });
  const policy = await loadPolicy(folder, { base });
  const other = createTinyPolicy({}, { seed: 8 });
  const wide = createTinyPolicy({ hidden_size: 64 });
  const flat = createTinyPolicy({ num_hidden_layers: 1 });
  const error = await refusal(loadPolicy(folder, { base: other }));
  assert.is(error.code, 'checkpoint.invalid');
  assert.match(error.message, `an adapter of the base ${base.hash}, not of this one, which is ${other.hash}`);
  const at = path.join(root, 'changed');
  const changed = async (change: (config: Record<string, unknown>) => object, on = base) => {
    fs.rmSync(at, { recursive: true, force: true });
    fs.cpSync(folder, at, { recursive: true });
    fs.rmSync(path.join(at, 'optima.json'));
    const file = path.join(at, 'adapter_config.json');
    fs.writeFileSync(file, JSON.stringify(change(JSON.parse(fs.readFileSync(file, 'utf8')))));
    return (await refusal(loadPolicy(at, { base: on }))).message;
  };
  const same = (config: object) => config;
  assert.match(
    await changed(same, wide),
    /lora_A\.weight has shape \[3,32\], but the base asks for \[3,64\]/,
  );
  assert.match(await changed(same, flat), /layers\.1\.\S+ is no factor of a matrix of the base/);
  assert.match(
    await changed((config) => ({ ...config, r: 4 })),
    /has shape \[3,32\], but the base asks for \[4,32\]/,
  );
  for (const field of [
    { use_dora: true },
    { rank_pattern: { q_proj: 2 } },
    { modules_to_save: ['lm_head'] },
    { layer_replication: [[0, 1]] },
    { some_new_thing: 3 },
  ]) {
    const [name] = Object.keys(field);
    assert.match(
      await changed((config) => ({ ...config, ...field })),
      `${name} ${JSON.stringify(Object.values(field)[0])} is not supported`,
    );
  }
  assert.match(
    await changed((config) => ({ ...config, init_lora_weights: 'pissa' })),
    /field init_lora_weights/,
  );
  assert.match(await changed((config) => ({ ...config, peft_type: 'IA3' })), /field peft_type/);
  assert.match(await changed(() => []), /adapter_config.json: field top/);
  const weights = path.join(at, 'adapter_model.safetensors');
  await changed(() => []);
  fs.copyFileSync(path.join(folder, 'adapter_config.json'), path.join(at, 'adapter_config.json'));
  const bytes = fs.readFileSync(weights);
  fs.writeFileSync(weights, bytes.subarray(0, bytes.length - 40));
  assert.match((await refusal(loadPolicy(at, { base }))).message, /truncated/);
  bytes[bytes.length - 5]! ^= 1;
  fs.writeFileSync(weights, bytes);
  assert.match((await refusal(loadPolicy(at, { base, hash: policy.hash }))).message, `not ${policy.hash}`);
  const away = path.join(root, 'away');
  fs.rmSync(away, { recursive: true, force: true });
  fs.cpSync(folder, away, { recursive: true });
  const config = path.join(away, 'adapter_config.json');
  fs.writeFileSync(config, fs.readFileSync(config, 'utf8').replace(path.join(root, 'base'), 'meta/nowhere'));
  assert.match(
    (await refusal(loadPolicy(away))).message,
    /the base of this adapter, meta\/nowhere, is not there/,
  );
  fs.writeFileSync(config, fs.readFileSync(config, 'utf8').replace('meta/nowhere', folder));
  const nested = await refusal(loadPolicy(away));
  assert.match(nested.message, `the base of this adapter, ${folder}, is an adapter itself`);
  assert.match(nested.hint!, `optima merge ${folder} `);
  const [own, pickled] = ['adapter_model.safetensors', 'adapter_model.bin'].map((name) =>
    path.join(away, name),
  ) as [string, string];
  fs.renameSync(own, pickled);
  const unread = await refusal(loadPolicy(away, { base }));
  assert.match(unread.message, `${own}: no such file, and adapter_model.bin is not read`);
  assert.match(unread.hint!, /PeftModel/);
  fs.rmSync(pickled);
  assert.match(
    (await refusal(loadPolicy(away, { base }))).hint!,
    /^An adapter's folder holds adapter_config/,
  );
  for (const one of [policy, base, other, wide, flat]) one.dispose();
});

test('targets are named as a whole or one by one', () => {
  assert.equal(loraTargets('all-linear'), adaptableMatrices);
  assert.equal(loraTargets('v_proj, q_proj'), ['q_proj', 'v_proj']);
  assert.is(loraTargets('q_proj,qproj'), null);
  assert.is(loraTargets(''), null);
});

test.run();
