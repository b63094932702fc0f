// Supervised fine-tuning: the loss against torch, the step, and what a run is made of and counts.
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../../src/domain/errors.ts';
import type { TrainingSequence } from '../../../src/domain/model.ts';
import { createRng } from '../../../src/domain/rng.ts';
import { embed, startEngine, tf } from '../../../src/tensor/index.ts';
import { createAdamW } from '../../../src/training/adamw.ts';
import { padBatch } from '../../../src/training/batches.ts';
import { defaultSftConfig, type SftConfig, sftObjective, trainSft } from '../../../src/training/sft/index.ts';
import { computeSftLoss } from '../../../src/training/sft/loss.ts';
import { takeStep } from '../../../src/training/step.ts';
import { withPolicy } from '../toy-policy.ts';

const codeOf = (running: Promise<unknown>): Promise<string> =>
  running.then(
    () => 'resolved',
    (error) => {
      if (error instanceof OptimaError) return error.code;
      throw error;
    },
  );

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
      outcome = await takeStep(policy, sftObjective, optimizer, counting, {
        learningRate: 0.05,
        tokensPerPass,
      });
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
    const step = () =>
      takeStep(policy, sftObjective, optimizer, counting, { learningRate: 0.01, tokensPerPass: 12 });
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
    // This one loses nothing that counts.
    const early: TrainingSequence = { tokenIds: [1, 2, 3, 4, 5, 6], lossMask: [0, 0, 1, 0, 0, 0] };
    const result = await trainSft(
      policy,
      [...counting, early, late],
      { ...config, maxSequenceTokens: 5 },
      createRng(1),
    );
    assert.is(result.sequences, counting.length + 1);
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

test('each field of the configuration has an effect', async () => {
  const train = async (overrides: Partial<SftConfig>) => {
    let outcome: unknown;
    await withPolicy(async (policy) => {
      const passes: number[][] = [];
      const { computeLogits } = policy;
      policy.computeLogits = (inputIds, positions) => {
        passes.push(inputIds.shape);
        return computeLogits(inputIds, positions);
      };
      // With so large an epsilon the size of a gradient matters.
      const base = { ...config, clipNorm: 0.5, warmupFraction: 0.3, epsilon: 1e-2 };
      await trainSft(policy, counting, { ...base, ...overrides }, createRng(1));
      outcome = { passes, weights: policy.weights() };
    });
    return outcome as { passes: number[][]; weights: number[] };
  };
  const usual = await train({});
  const changes: Partial<SftConfig>[] = [
    { learningRate: 0.02 },
    { epochs: 2 },
    { batchSize: 3 },
    { warmupFraction: 0.5 },
    { floorFraction: 0.5 },
    { weightDecay: 0.5 },
    { clipNorm: 0.01 },
    { beta1: 0.5 },
    { beta2: 0.5 },
    { epsilon: 1e-3 },
    { maxSequenceTokens: 6 },
  ];
  for (const change of changes) {
    assert.not.equal((await train(change)).weights, usual.weights, JSON.stringify(change));
  }
  assert.is(usual.passes.length, 9);
  assert.is((await train({ tokensPerPass: 1 })).passes.length, 18);
});

test('a default changes only on purpose', () => {
  assert.equal(defaultSftConfig, {
    learningRate: 3e-4,
    epochs: 3,
    batchSize: 16,
    warmupFraction: 0.1,
    floorFraction: 0,
    weightDecay: 0,
    clipNorm: 1,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    maxSequenceTokens: 1024,
    tokensPerPass: 2048,
  });
});

test('a run can be stopped, and one without a token to learn says how many sequences it had', () =>
  withPolicy(async (policy) => {
    const stopped = trainSft(policy, counting, config, createRng(1), { signal: AbortSignal.abort() });
    assert.is(await codeOf(stopped), 'interrupted');
    const silent: TrainingSequence = { tokenIds: [1, 2], lossMask: [1, 0] };
    const empty = await trainSft(policy, [silent, silent], config, createRng(1)).catch((error) => error);
    assert.is(empty.message, 'None of 2 sequences has a token to train on.');
  }));

test.run();
