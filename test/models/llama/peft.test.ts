// LoRA against PEFT: logits, a step of SFT and one of DPO, and files. The adapters are made by
// tools/fixtures/make_lora_fixture.py; ADAPTERS names a folder of others that it made. WRITE_ADAPTERS names a folder that gets
// them as this project saves them, after a step, for the script's --check.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TrainingSequence } from '../../../src/domain/model.ts';
import { numbersOf } from '../../../src/models/llama/held-weights.ts';
import { type LlamaPolicy, loadPolicy } from '../../../src/models/llama/index.ts';
import { readSafetensors } from '../../../src/models/llama/safetensors.ts';
import { tf } from '../../../src/tensor/index.ts';
import { createAdamW } from '../../../src/training/adamw.ts';
import { defaultDpoConfig, dpoObjective, type PreferenceExample } from '../../../src/training/dpo/index.ts';
import type { Objective } from '../../../src/training/objective.ts';
import { defaultSftConfig, sftObjective } from '../../../src/training/sft/index.ts';
import { takeStep } from '../../../src/training/step.ts';
import { lettersTokenizer } from '../../support/letters.ts';
import { products, skipMissing } from '../../tensor/compare.ts';

const root = process.env.ADAPTERS ?? fileURLToPath(new URL('./adapters', import.meta.url));
const written = process.env.WRITE_ADAPTERS ?? fs.mkdtempSync(path.join(os.tmpdir(), 'optima-peft-'));
test.after(() => {
  if (process.env.WRITE_ADAPTERS === undefined) fs.rmSync(written, { recursive: true });
});

interface Figures {
  readonly loss: number;
  readonly gradNorm: number;
}
interface Reference {
  readonly ids: number[];
  readonly training: {
    readonly learningRate: number;
    readonly beta: number;
    readonly epsilon: number;
    readonly batch: TrainingSequence[];
    readonly pairs: PreferenceExample[];
    readonly sft: Figures;
    readonly dpo: Figures;
  };
}

const open = (folder: string) => loadPolicy(folder, { tokenizer: lettersTokenizer });
const logitsOf = (policy: LlamaPolicy, ids: readonly number[]) =>
  tf.tidy(() =>
    policy.computeLogits(tf.tensor2d([[...ids]], [1, ids.length], 'int32')).dataSync<'float32'>(),
  );

function assertNear(actual: Float32Array, expected: Float32Array, what: string): void {
  assert.is(actual.length, expected.length);
  actual.forEach((value, i) => {
    if (!(Math.abs(value - expected[i]!) < 1e-4))
      assert.unreachable(`${what} ${i}: ${value}, not ${expected[i]}`);
  });
}

for (const name of fs.readdirSync(root).sort()) {
  const folder = path.join(root, name);
  const { ids, training }: Reference = JSON.parse(
    fs.readFileSync(path.join(folder, 'reference.json'), 'utf8'),
  );
  const reference = () => readSafetensors(path.join(folder, 'reference.safetensors'));

  // By tensors, which takes its time: one of them.
  const cpu = { name: 'on the cpu backend', install: async () => void (await tf.setBackend('cpu')) };
  for (const { name: product, install } of name.startsWith('qwen3') ? [...products, cpu] : products) {
    test(`${name} ${product}: the logits of PEFT, apart from the base and merged into it`, async () => {
      await install();
      const { values } = (await reference()).get('logits')!;
      const policy = await open(folder);
      const merged = policy.merge();
      assertNear(logitsOf(policy, ids), values, 'apart');
      assertNear(logitsOf(merged, ids), values, 'merged');
      for (const one of [policy, merged]) one.dispose();
    });

    test(`${name} ${product}: a step of SFT and one of DPO give PEFT's factors`, async () => {
      await install();
      const tensors = await reference();
      const assertStep = async <Example>(
        kind: 'sft' | 'dpo',
        objective: Objective<Example>,
        examples: readonly Example[],
      ) => {
        const policy = await open(folder);
        const weights = [...numbersOf(policy.weights).values()].map(({ values }) => values);
        const config = {
          ...(kind === 'sft' ? defaultSftConfig : defaultDpoConfig),
          weightDecay: 0,
          clipNorm: 1,
        };
        const optimizer = createAdamW(policy.parameters, { ...config, epsilon: training.epsilon });
        const result = await takeStep(policy, objective, optimizer, examples, {
          learningRate: training.learningRate,
          tokensPerPass: 4096,
        });
        const { loss, gradNorm } = training[kind];
        assert.ok(Math.abs(result.loss - loss) < 1e-4, `${result.loss} is not ${loss}`);
        assert.ok(
          Math.abs(result.gradNorm - gradNorm) < 1e-4 * gradNorm,
          `${result.gradNorm} is not ${gradNorm}`,
        );
        for (const [factor, variable] of policy.parameters) {
          assertNear(
            variable.dataSync<'float32'>(),
            tensors.get(`${kind}.${factor}`)!.values,
            `${kind} ${factor}`,
          );
        }
        assert.equal(
          [...numbersOf(policy.weights).values()].map(({ values }) => values),
          weights,
          'the base stays',
        );
        if (kind === 'dpo') {
          const at = path.join(written, name);
          await policy.save(at);
          const logits = Array.from(ids, (_, i) => [
            ...logitsOf(policy, ids).slice(i * policy.config.vocab_size, (i + 1) * policy.config.vocab_size),
          ]);
          fs.writeFileSync(path.join(at, 'reference.json'), JSON.stringify({ ids, logits }));
        }
        optimizer.dispose();
        policy.dispose();
      };
      await assertStep('sft', sftObjective, training.batch);
      for (const packed of [true, false]) {
        const objective = dpoObjective({ ...defaultDpoConfig, beta: training.beta, alpha: 1, packed });
        await assertStep(
          'dpo',
          objective,
          training.pairs.map((pair) => ({ ...pair, group: 'one' })),
        );
      }
    });
  }

  test(`${name} is written with the tensors and the words that PEFT wrote`, async () => {
    await products[0]!.install();
    const policy = await open(folder);
    const at = path.join(written, `${name} again`);
    await policy.save(at);
    policy.dispose();
    const [theirs, ours] = await Promise.all(
      [folder, at].map((one) => readSafetensors(path.join(one, 'adapter_model.safetensors'))),
    );
    assert.equal([...ours!.keys()].sort(), [...theirs!.keys()].sort());
    for (const [tensor, array] of theirs!) assert.equal(ours!.get(tensor), array, tensor);
    const [known, own] = [folder, at].map((one) =>
      JSON.parse(fs.readFileSync(path.join(one, 'adapter_config.json'), 'utf8')),
    );
    for (const [field, value] of Object.entries(own)) {
      if (field === 'target_modules')
        assert.equal(
          value,
          [...(value as string[])].filter((one) => known[field].includes(one)),
        );
      else if (field !== 'base_model_name_or_path') assert.equal(value, known[field], field);
    }
    assert.is(own.target_modules.length, known.target_modules.length);
  });
}

skipMissing(test);

test.run();
