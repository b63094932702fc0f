// Supervised fine-tuning of the embedded model's architecture, end to end on a tiny instance.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ChatMessage } from '../../../src/domain/model.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { createPolicy, type LlamaPolicy } from '../../../src/models/llama/index.ts';
import { tokenizerFrom, trainTokenizer } from '../../../src/models/tokenizer/index.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { createAdamW } from '../../../src/training/adamw.ts';
import { defaultSftConfig, sftObjective, trainSft } from '../../../src/training/sft/index.ts';
import { takeStep } from '../../../src/training/step.ts';
import { createTinyPolicy, tinyConfig } from '../../support/llama.ts';

const files = trainTokenizer(['Kano is red.', 'Mira is blue.', 'Which colour is it?'], { vocabSize: 290 });
const tokenizer = tokenizerFrom(files.tokenizerJson, files.tokenizerConfig);

const createTiny = (): LlamaPolicy =>
  createPolicy(
    {
      vocab_size: tokenizer.vocabSize,
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      max_position_embeddings: 128,
      tie_word_embeddings: true,
    },
    tokenizer,
    createRng('tiny'),
  );

/** The colour asked for stands in the system text alone: a model must read it there. */
const dialogues = (['red', 'blue', 'green', 'grey'] as const).map((colour): ChatMessage[] => [
  { role: 'system', content: `Kano is ${colour}.` },
  { role: 'user', content: 'Which colour is Kano?' },
  { role: 'assistant', content: `Kano is ${colour}, I see.` },
]);

let policy: LlamaPolicy;

test.before(async () => {
  await startEngine();
});
test.before.each(() => {
  policy = createTiny();
});
test.after.each(() => {
  policy.dispose();
});

test('a tiny decoder overfits a batch and then says what it was taught', async () => {
  const tensors = tf.memory().numTensors;
  const hash = policy.hash;
  const result = await trainSft(
    policy,
    dialogues.map((messages) => policy.encode(messages)),
    { ...defaultSftConfig, learningRate: 1e-2, epochs: 80, batchSize: 4 },
    createRng(1),
  );
  assert.ok(result.loss < 0.1, `loss ${result.loss}`);
  assert.is.not(policy.hash, hash);
  assert.is(tf.memory().numTensors, tensors);
  const answers = await policy.generate(
    dialogues.map((messages, i) => ({
      id: `answer-${i}`,
      messages: messages.slice(0, -1),
      sampling: { temperature: 0, topP: 1, topK: 0, maxTokens: 30 },
      seed: 0,
    })),
  );
  assert.equal(
    answers.map(({ text }) => text),
    dialogues.map((messages) => messages.at(-1)!.content),
  );
});

test('a step leaves no tensor behind', async () => {
  const optimizer = createAdamW(policy.parameters, defaultSftConfig);
  const batch = dialogues.map((messages) => policy.encode(messages));
  const step = () =>
    takeStep(policy, sftObjective, optimizer, batch, { learningRate: 1e-3, tokensPerPass: 64 });
  await step();
  const after = tf.memory().numTensors;
  await step();
  assert.is(tf.memory().numTensors, after);
});

test('every weight of the decoder moves', async () => {
  const before = new Map([...policy.parameters].map(([name, value]) => [name, value.dataSync().slice()]));
  const optimizer = createAdamW(policy.parameters, defaultSftConfig);
  const batch = dialogues.map((messages) => policy.encode(messages));
  await takeStep(policy, sftObjective, optimizer, batch, { learningRate: 1e-3, tokensPerPass: 4096 });
  for (const [name, value] of policy.parameters) {
    const moved = value.dataSync().some((weight, i) => weight !== before.get(name)![i]);
    assert.ok(moved, name);
  }
});

test('the losses of twenty steps are those of the cpu backend', async () => {
  const rng = createRng('sequences');
  // One of them longer than the strips in which attention is computed.
  const sequences = [9, 14, 70, 11].map((length) => ({
    tokenIds: Array.from({ length }, () => rng.int(tinyConfig.vocab_size)),
    lossMask: Array.from({ length }, (_, i): 0 | 1 => (i % 5 === 0 ? 0 : 1)),
  }));
  const config = { ...defaultSftConfig, learningRate: 3e-3, epochs: 20, batchSize: 4, tokensPerPass: 60 };
  const chosen = tf.getBackend();
  const curves: number[][] = [];
  for (const backend of [chosen, 'cpu']) {
    await tf.setBackend(backend);
    // Few words: the cpu backend's gradient of an embedding takes a time that grows with their number.
    const trainee = createTinyPolicy({ tie_word_embeddings: true }, { gain: 1 });
    const losses: number[] = [];
    await trainSft(trainee, sequences, config, createRng(2), {
      onStep: ({ loss }) => void losses.push(loss),
    });
    trainee.dispose();
    curves.push(losses);
  }
  await tf.setBackend(chosen);
  const [own, cpu] = curves as [number[], number[]];
  assert.is(own.length, 20);
  assert.ok(own[19]! < own[0]! - 0.1, 'it should have learnt something');
  own.forEach((loss, step) => {
    assert.ok(Math.abs(loss - cpu[step]!) < 1e-4, `step ${step}: ${loss} is not ${cpu[step]}`);
  });
});

test.run();
