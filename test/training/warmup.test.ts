// Warm-up: a stream of fresh batches, and what becomes of each field of its configuration.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TrainingSequence } from '../../src/domain/model.ts';
import { startEngine } from '../../src/tensor/index.ts';
import type { StepReport, TrainingOptions } from '../../src/training/loop.ts';
import { defaultWarmupConfig, type WarmupConfig, warmup } from '../../src/training/warmup.ts';
import { near, withPolicy } from './toy-policy.ts';

test.before(async () => {
  await startEngine();
});

/** Counts upwards from `start`; all but the first two tokens count. */
const counting = (start: number, length = 5): TrainingSequence => ({
  tokenIds: Array.from({ length }, (_, i) => 1 + ((start + i) % 7)),
  lossMask: Array.from({ length }, (_, i) => (i > 1 ? 1 : 0)),
});

const config: WarmupConfig = {
  ...defaultWarmupConfig,
  steps: 5,
  learningRate: 0.1,
  warmupSteps: 2,
  floorFraction: 0.2,
  clipNorm: 0.5,
  // Large enough that the size of a gradient matters.
  epsilon: 1e-2,
};

/** Warms up on three sequences a step: the reports, the weights at the end, and the shape of each pass. */
async function train(overrides: Partial<WarmupConfig> = {}, options: TrainingOptions = {}) {
  const asked: number[] = [];
  const passes: number[][] = [];
  let reports: readonly StepReport[] = [];
  let weights: number[] = [];
  await withPolicy(async (policy) => {
    const { computeLogits } = policy;
    policy.computeLogits = (inputIds, positions) => {
      passes.push(inputIds.shape);
      return computeLogits(inputIds, positions);
    };
    const stream = (index: number) => {
      asked.push(index);
      return [counting(index), counting(index + 2), counting(index + 3, 7)];
    };
    reports = await warmup(policy, stream, { ...config, ...overrides }, options);
    weights = policy.weights();
  });
  return { asked, passes, reports, weights };
}

test('the stream is asked for each batch once and in order, and the model learns', async () => {
  const { asked, reports } = await train({ steps: 60, warmupSteps: 5 });
  assert.equal(
    asked,
    Array.from({ length: 60 }, (_, i) => i),
  );
  assert.ok(reports.at(-1)!.loss < 0.5 * reports[0]!.loss);
});

test('the rate rises to the peak and ends on the way to its share of the peak', async () => {
  const { reports } = await train();
  // 0.06 + 0.04 · cos(π · k / 3) for k = 0, 1, 2 after two steps of rising.
  near(
    reports.map(({ learningRate }) => learningRate),
    [0.1 / 3, 0.2 / 3, 0.1, 0.08, 0.04],
    1e-12,
  );
});

test('each field of the configuration has an effect', async () => {
  const { weights } = await train();
  const changes: Partial<WarmupConfig>[] = [
    { steps: 4 },
    { learningRate: 0.05 },
    { warmupSteps: 1 },
    { floorFraction: 0.5 },
    { weightDecay: 0.5 },
    { clipNorm: 0.01 },
    { beta1: 0.5 },
    { beta2: 0.5 },
    { epsilon: 1e-3 },
    { maxSequenceTokens: 4 },
  ];
  for (const change of changes) {
    assert.not.equal((await train(change)).weights, weights, JSON.stringify(change));
  }
  assert.equal((await train()).weights, weights);
});

test('a step is cut into passes, and sequences at their limit', async () => {
  const steps = (shapes: number[][]) => Array.from({ length: config.steps }, () => shapes).flat();
  assert.equal((await train()).passes, steps([[3, 6]]));
  assert.equal(
    (await train({ tokensPerPass: 7 })).passes,
    steps([
      [1, 6],
      [1, 4],
      [1, 4],
    ]),
  );
  const cut = await train({ maxSequenceTokens: 4 });
  assert.equal(cut.passes, steps([[3, 3]]));
  assert.ok(cut.reports.every(({ tokens }) => tokens === 6));
});

test('a sequence without a token that counts is left out, and a batch of nothing else refused', () =>
  withPolicy(async (policy) => {
    const silent: TrainingSequence = { tokenIds: [1, 2], lossMask: [1, 0] };
    const batches = [[silent, counting(0)], [silent]];
    const tokens: number[] = [];
    const error = await warmup(policy, (index) => batches[index]!, config, {
      onStep: (report) => void tokens.push(report.tokens),
    }).catch((thrown) => thrown);
    assert.equal(tokens, [3]);
    assert.is(error.code, 'selection.empty');
    assert.is(error.message, 'Warm-up batch 1 has no token to train on.');
  }));

test('a default changes only on purpose', () => {
  assert.equal(defaultWarmupConfig, {
    steps: 3000,
    learningRate: 2e-3,
    warmupSteps: 100,
    floorFraction: 0.1,
    weightDecay: 0.1,
    clipNorm: 1,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    maxSequenceTokens: 1024,
    tokensPerPass: 4096,
  });
});

test('it can be stopped', async () => {
  const error = await train({}, { signal: AbortSignal.abort() }).catch((thrown) => thrown);
  assert.is(error.code, 'interrupted');
});

test.run();
