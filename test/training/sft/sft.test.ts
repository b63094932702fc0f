// Supervised fine-tuning: the loss against torch, examples from dialogues, the step, the loop.
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../../src/domain/errors.ts';
import type { TrainingSequence } from '../../../src/domain/model.ts';
import { createRng } from '../../../src/domain/rng.ts';
import type { Turn } from '../../../src/domain/transcript.ts';
import { tokenizerFrom, trainTokenizer } from '../../../src/models/tokenizer/index.ts';
import { embed, startEngine, tf } from '../../../src/tensor/index.ts';
import { createAdamW } from '../../../src/training/adamw.ts';
import { padBatch } from '../../../src/training/batches.ts';
import { defaultSftConfig, sftExamples, trainSft } from '../../../src/training/sft/index.ts';
import { computeSftLoss } from '../../../src/training/sft/loss.ts';
import { takeSftStep } from '../../../src/training/sft/step.ts';
import { defaultWarmupConfig, warmup } from '../../../src/training/warmup.ts';
import { createToyPolicy, type ToyPolicy } from '../toy-policy.ts';

const codeOf = (running: Promise<unknown>): Promise<string> =>
  running.then(
    () => 'resolved',
    (error) => {
      if (error instanceof OptimaError) return error.code;
      throw error;
    },
  );

const withPolicy = async (run: (policy: ToyPolicy) => void | Promise<void>): Promise<void> => {
  const policy = createToyPolicy();
  try {
    await run(policy);
  } finally {
    policy.dispose();
  }
};

/** Counting upwards modulo 7: each token follows from the one before, which is all the toy policy sees. */
const counting: TrainingSequence[] = Array.from({ length: 6 }, (_, start) => ({
  tokenIds: Array.from({ length: 4 + start }, (_, i) => 1 + ((start + i) % 7)),
  lossMask: Array.from({ length: 4 + start }, (_, i) => (i > 1 ? 1 : 0)),
}));
const config = { ...defaultSftConfig, batchSize: 2, learningRate: 0.05 };

test.before(async () => {
  await startEngine();
});

test('the loss and its gradient agree with torch cross_entropy with ignore_index', () => {
  const fixture: {
    sequences: TrainingSequence[];
    logits: number[][][];
    loss: number;
    gradient: number[][][];
  } = JSON.parse(readFileSync(new URL('../golden/sft-loss.json', import.meta.url), 'utf8'));
  const { positions, labels } = padBatch(fixture.sequences, 0);
  tf.tidy(() => {
    const computeLoss = (logits: tf.Tensor2D) =>
      computeSftLoss(
        embed(logits, tf.tensor1d(positions, 'int32')),
        tf.tensor1d(labels, 'int32'),
        labels.length,
      );
    const { value, grad } = tf.valueAndGrad(computeLoss)(tf.tensor2d(fixture.logits.flat()));
    assert.ok(Math.abs(value.dataSync()[0]! - fixture.loss) < 1e-5);
    const expected = fixture.gradient.flat(2);
    grad.dataSync().forEach((actual, i) => {
      assert.ok(Math.abs(actual - expected[i]!) < 1e-6);
    });
  });
});

test('splitting a batch into passes does not change the step', async () => {
  const afterStep = async (tokensPerPass: number) => {
    let outcome: unknown;
    let weights: number[] = [];
    await withPolicy(async (policy) => {
      const optimizer = createAdamW(policy.parameters, config);
      outcome = await takeSftStep(policy, optimizer, counting, { learningRate: 0.05, tokensPerPass });
      weights = policy.weights();
    });
    return { outcome: outcome as { loss: number; gradNorm: number; tokens: number }, weights };
  };
  const whole = await afterStep(1000);
  const split = await afterStep(12);
  assert.is(whole.outcome.tokens, split.outcome.tokens);
  assert.ok(Math.abs(whole.outcome.loss - split.outcome.loss) < 1e-5);
  assert.ok(Math.abs(whole.outcome.gradNorm - split.outcome.gradNorm) < 1e-5);
  // Adam's first step is sign-like where gradients are tiny, so compare well below its size of 0.05.
  whole.weights.forEach((weight, i) => {
    assert.ok(Math.abs(weight - split.weights[i]!) < 1e-3);
  });
});

test('a step leaves no tensor behind', () =>
  withPolicy(async (policy) => {
    const optimizer = createAdamW(policy.parameters, config);
    const step = () => takeSftStep(policy, optimizer, counting, { learningRate: 0.01, tokensPerPass: 12 });
    await step();
    const after = tf.memory().numTensors;
    await step();
    assert.is(tf.memory().numTensors, after);
  }));

test('training overfits a few sequences, refreshes the hash and frees what it made', () =>
  withPolicy(async (policy) => {
    const tensors = tf.memory().numTensors;
    const steps: number[] = [];
    const result = await trainSft(policy, counting, { ...config, epochs: 40 }, createRng(1), {
      onStep: ({ step }) => {
        steps.push(step);
      },
    });
    assert.ok(result.loss < 0.1, `loss ${result.loss}`);
    assert.is(result.steps, 120);
    assert.equal(
      steps,
      Array.from({ length: 120 }, (_, i) => i),
    );
    assert.is(policy.refreshes, 1);
    assert.is(tf.memory().numTensors, tensors);
  }));

test('the same seed trains the same weights, another seed others', async () => {
  const train = async (seed: number) => {
    let weights: number[] = [];
    await withPolicy(async (policy) => {
      await trainSft(policy, counting, config, createRng(seed));
      weights = policy.weights();
    });
    return weights;
  };
  const first = await train(1);
  assert.equal(await train(1), first);
  assert.not.equal(await train(2), first);
});

test('sequences too long are counted, not silently lost', () =>
  withPolicy(async (policy) => {
    const late: TrainingSequence = { tokenIds: [1, 2, 3, 4, 5, 6], lossMask: [0, 0, 0, 0, 0, 1] };
    const result = await trainSft(
      policy,
      [...counting, late],
      { ...config, maxSequenceTokens: 5 },
      createRng(1),
    );
    assert.is(result.sequences, counting.length);
    assert.is(result.skipped, 1);
    // Of the six counting sequences those of 6, 7, 8 and 9 tokens, and the one left out.
    assert.is(result.truncated, 5);
    assert.is(
      await codeOf(trainSft(policy, [late], { ...config, maxSequenceTokens: 5 }, createRng(1))),
      'selection.empty',
    );
  }));

test('a run that diverges leaves the weights and the number of tensors as they were', () =>
  withPolicy(async (policy) => {
    const weights = policy.weights();
    const tensors = tf.memory().numTensors;
    const exploding = { ...config, learningRate: 1e30, epochs: 4 };
    assert.is(await codeOf(trainSft(policy, counting, exploding, createRng(1))), 'training.diverged');
    assert.equal(policy.weights(), weights);
    assert.is(policy.refreshes, 1);
    assert.is(tf.memory().numTensors, tensors);
  }));

test('an aborted run stops after the step under way', () =>
  withPolicy(async (policy) => {
    const controller = new AbortController();
    let steps = 0;
    const running = trainSft(policy, counting, { ...config, epochs: 10 }, createRng(1), {
      signal: controller.signal,
      onStep: () => {
        if (++steps === 4) controller.abort();
      },
    });
    assert.is(await codeOf(running), 'interrupted');
    assert.is(steps, 4);
  }));

test('timers run between steps', () =>
  withPolicy(async (policy) => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    await trainSft(policy, counting, { ...config, epochs: 10 }, createRng(1));
    clearInterval(timer);
    assert.ok(ticks > 5, `${ticks} ticks`);
  }));

test('warm-up asks its stream for each batch once and in order, and learns', () =>
  withPolicy(async (policy) => {
    const asked: number[] = [];
    const reports = await warmup(
      policy,
      (index) => {
        asked.push(index);
        return [counting[index % counting.length]!];
      },
      { ...defaultWarmupConfig, steps: 60, warmupSteps: 5, learningRate: 0.1 },
    );
    assert.equal(
      asked,
      Array.from({ length: 60 }, (_, i) => i),
    );
    assert.ok(reports.at(-1)!.loss < 0.5 * reports[0]!.loss);
    assert.is(
      await codeOf(warmup(policy, () => [], { ...defaultWarmupConfig, steps: 1 })),
      'selection.empty',
    );
  }));

const files = trainTokenizer(['alice', 'bob'], { vocabSize: 261 });
const tokenizer = tokenizerFrom(files.tokenizerJson, files.tokenizerConfig);
const encoder = {
  encode: (messages: Parameters<typeof tokenizer.encodeChat>[0]) => tokenizer.encodeChat(messages, false),
};

/** Turns of alice and bob by turns; `words` in upper case were typed by a person. */
const turnsOf = (words: string[]): Turn[] =>
  words.map((text, index) => {
    const isHuman = text === text.toUpperCase();
    return {
      text,
      speaker: index % 2 === 0 ? 'alice' : 'bob',
      tokenIds: isHuman ? [] : [...tokenizer.encode(text), tokenizer.endOfTurnId],
      provenance: isHuman ? 'human' : 'sampled',
    } as unknown as Turn;
  });
const plainViews = { alice: 'a', bob: 'b' };
const learnt = ({ tokenIds, lossMask }: TrainingSequence) =>
  tokenizer.decode(tokenIds.filter((_, i) => lossMask[i] === 1));

test('a dialogue gives one example per agent: its plain view, its own turns learnt', () => {
  const examples = sftExamples({ plainViews, turns: turnsOf(['one', 'two', 'three']) }, encoder);
  assert.equal(examples.map(learnt), ['onethree', 'two']);
  assert.equal(
    examples.map(({ tokenIds }) => tokenizer.decode(tokenIds)),
    ['aonetwothree', 'bonetwothree'],
  );
});

test('turns that a person wrote are read and not learnt', () => {
  const examples = sftExamples({ plainViews, turns: turnsOf(['one', 'TWO', 'THREE', 'four']) }, encoder);
  assert.equal(examples.map(learnt), ['one', 'four']);
  assert.equal(sftExamples({ plainViews, turns: turnsOf(['one', 'TWO']) }, encoder).map(learnt), ['one']);
});

test.run();
