// Frozen matrices against the same weights on the heap: what is computed with them is the same, to the bit.
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { MessageChannel } from 'node:worker_threads';
import { type Test, test as uvuTest } from 'uvu';
import * as assert from 'uvu/assert';
import { adaptableMatrices } from '../../../src/domain/lora.ts';
import type { GenerationRequest } from '../../../src/domain/model.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { type SharedWeights, takeShared } from '../../../src/models/llama/held-weights.ts';
import { freshAdapter, LlamaPolicy, loadPolicy } from '../../../src/models/llama/index.ts';
import { readSafetensors } from '../../../src/models/llama/safetensors.ts';
import { isFrozen, tf } from '../../../src/tensor/index.ts';
import { installWasmKernels } from '../../../src/tensor/wasm/install.ts';
import { createAdamW } from '../../../src/training/adamw.ts';
import { defaultSftConfig, sftObjective } from '../../../src/training/sft/index.ts';
import { takeStep } from '../../../src/training/step.ts';
import { lettersTokenizer } from '../../support/letters.ts';
import { temporaryFolder } from '../../support/run.ts';
import { machineCode } from '../../tensor/compare.ts';

if (typeof machineCode === 'string') console.log(`skipped: machine code: ${machineCode}`);
else installWasmKernels({ blas: null, machineCode });
const test = (typeof machineCode === 'string' ? uvuTest.skip : uvuTest) as Test;

const root = fileURLToPath(new URL('./kinds', import.meta.url));
const kinds = [
  ...['llama-tied-sharded-bf16', 'mistral', 'qwen2-window-sharded-bf16', 'qwen3-wide-tied', 'smollm-like'],
  ...['llama-grouped', 'llama-odd-f16'],
];
const open = (kind: string, frozen: boolean) =>
  loadPolicy(`${root}/${kind}`, { tokenizer: lettersTokenizer, frozen });

const request = (id: string, length: number): GenerationRequest => ({
  id,
  messages: [
    { role: 'assistant', content: '', tokenIds: Array.from({ length }, (_, i) => 3 + ((7 * i) % 20)) },
  ],
  sampling: { temperature: 1, topP: 1, topK: 0, maxTokens: 20 },
  seed: 5,
});

/** What it says to several, one of them long; logits; and what a step of LoRA makes of it. */
async function outcomeOf(policy: LlamaPolicy) {
  const ids = Array.from({ length: 120 }, (_, i) => 1 + ((5 * i) % 30));
  const logits = tf.tidy(() =>
    policy.computeLogits(tf.tensor2d(ids, [1, ids.length], 'int32')).dataSync<'float32'>(),
  );
  const requests = [request('a', 3), request('b', 100), request('c', 9)];
  const said = (await policy.generate(requests)).map(({ tokenIds, logprobs }) => ({ tokenIds, logprobs }));
  const targets = adaptableMatrices;
  const steps: Record<string, unknown> = {};
  for (const recompute of [false, true]) {
    const lora = { rank: 2, alpha: 4, dropout: 0, targets, recompute };
    const trainee = policy.withAdapter(freshAdapter(policy.config, lora, createRng('adapter')));
    const optimizer = createAdamW(trainee.parameters, defaultSftConfig);
    const batch = [ids.slice(0, 40), ids.slice(0, 110)].map((tokenIds) => ({
      tokenIds,
      lossMask: tokenIds.map((_, i) => (i % 3 === 0 ? 0 : 1) as 0 | 1),
    }));
    const options = { learningRate: 1e-2, tokensPerPass: 4096 };
    // The first step has no gradient of A.
    await takeStep(trainee, sftObjective, optimizer, batch, options);
    const { loss, gradNorm } = await takeStep(trainee, sftObjective, optimizer, batch, options);
    const factors = [...trainee.parameters].map(([name, factor]) => [name, factor.dataSync<'float32'>()]);
    const adapted = (await trainee.generate(requests)).map(({ logprobs }) => logprobs);
    steps[String(recompute)] = { loss, gradNorm, factors, adapted };
    optimizer.dispose();
    trainee.dispose();
  }
  return { hash: policy.hash, logits, said, steps };
}

for (const kind of kinds) {
  test(`${kind}: frozen it computes, says and learns what it does on the heap, to the bit`, async () => {
    const [plain, frozen] = [await open(kind, false), await open(kind, true)];
    const stored = await readSafetensorsTypes(`${root}/${kind}`);
    for (const weight of frozen.weights.values()) {
      assert.is(isFrozen(weight), weight.shape.length === 2);
      if (isFrozen(weight)) assert.is(weight.format, stored === 'BF16' ? 'bfloat16' : 'float32');
    }
    assert.is(frozen.parameters.size, 0);
    const outcome = await outcomeOf(frozen);
    assert.equal(outcome, await outcomeOf(plain));
    // Other threads get the same memory.
    const { port1, port2 } = new MessageChannel();
    const message = new Promise<SharedWeights>((resolve) => port2.once('message', resolve));
    port1.postMessage(frozen.shared);
    const got = await message;
    port1.close();
    const [name, matrix] = [...got.weights].find(([, weight]) => isFrozen(weight))!;
    const own = frozen.weights.get(name)!;
    assert.ok(isFrozen(matrix) && isFrozen(own));
    const before = own.numbers[0]!;
    own.numbers[0] = before === 1 ? 2 : 1;
    assert.is(matrix.numbers[0], own.numbers[0]);
    own.numbers[0] = before;
    const there = new LlamaPolicy(frozen.config, takeShared(got), lettersTokenizer);
    assert.equal(await outcomeOf(there), outcome);
    for (const policy of [there, frozen, plain]) policy.dispose();
  });
}

test('shared weights are refused to a folder whose config, generation config or tokenizer was changed', async () => {
  const folder = `${temporaryFolder('shared')}/model`;
  fs.cpSync(`${root}/smollm-like`, folder, { recursive: true });
  const owner = await loadPolicy(folder, { tokenizer: lettersTokenizer, frozen: true });
  const shared = owner.shared!;
  const load = (tokenizer = lettersTokenizer) => loadPolicy(folder, { tokenizer, shared, hash: owner.hash });
  const same = await load();
  assert.is(same.hash, owner.hash);
  same.dispose();
  const tensors = tf.memory().numTensors;
  const refused = async (loading: Promise<LlamaPolicy>) => {
    const error = await loading.then(
      () => null,
      (error) => error,
    );
    assert.is(error?.code, 'checkpoint.invalid');
    assert.match(error.message, new RegExp(`is not that of ${owner.hash}`));
    assert.is(tf.memory().numTensors, tensors);
  };
  await refused(load({ ...lettersTokenizer, hash: 'others' }));
  const generation = `${folder}/generation_config.json`;
  fs.writeFileSync(generation, JSON.stringify({ eos_token_id: [1, 7] }));
  await refused(load());
  fs.rmSync(generation);
  const config = JSON.parse(fs.readFileSync(`${folder}/config.json`, 'utf8'));
  fs.writeFileSync(`${folder}/config.json`, JSON.stringify({ ...config, rms_norm_eps: 0.01 }));
  await refused(load());
  owner.dispose();
});

/** How a checkpoint's tensors are stored. */
async function readSafetensorsTypes(folder: string): Promise<string> {
  const file = fs.readdirSync(folder).find((name) => /^model.*\.safetensors$/.test(name))!;
  return /"dtype":\s*"(\w+)"/.exec(fs.readFileSync(`${folder}/${file}`, 'latin1'))![1]!;
}

test('a frozen checkpoint is saved whole, and merged with an adapter', async () => {
  const [plain, frozen] = [await open('smollm-like', false), await open('smollm-like', true)];
  const folder = temporaryFolder('frozen');
  assert.is(await frozen.save(`${folder}/saved`), plain.hash);
  assert.is((await readSafetensors(`${folder}/saved/model.safetensors`)).size, frozen.weights.size);
  const lora = { rank: 2, alpha: 4, dropout: 0, targets: adaptableMatrices };
  const adapter = freshAdapter(plain.config, lora, createRng('adapter'));
  for (const { values } of adapter.factors.values()) values.fill(0.01);
  const merged = [plain, frozen].map((base) => base.withAdapter(adapter).merge());
  assert.is(merged[0]!.hash, merged[1]!.hash);
  for (const policy of [...merged, plain, frozen]) policy.dispose();
});

test.run();
