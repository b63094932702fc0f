// Training in epochs, of any objective: how examples are dealt, what the schedule is, and what comes out.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { startEngine, tf } from '../../src/tensor/index.ts';
import { shuffledBatches } from '../../src/training/batches.ts';
import { type EpochsConfig, trainEpochs } from '../../src/training/epochs.ts';
import type { StepReport } from '../../src/training/loop.ts';
import type { Objective } from '../../src/training/objective.ts';
import type { ComputePasses } from '../../src/training/step.ts';
import { type Pull, pullObjective } from './toy-objective.ts';
import { near, withPolicy } from './toy-policy.ts';

test.before(async () => {
  await startEngine();
});

const config: EpochsConfig = {
  learningRate: 0.05,
  epochs: 3,
  batchSize: 2,
  warmupFraction: 0.1,
  floorFraction: 0,
  tokensPerPass: 10,
  weightDecay: 0,
  clipNorm: 1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
};
const pulls: Pull[] = [20, 21, 22, 23, 24].map((target, i) => ({ target, weight: 1 + i }));

/** Computes nothing, notes the examples of each step, and gives the losses 1, 2, 3 … */
function notingPasses() {
  const steps: Pull[][] = [];
  const computePasses: ComputePasses<Pull> = async (passes) => ({
    loss: steps.push(passes.flat()),
    figures: {},
    gradients: new Map(),
  });
  return { steps, computePasses };
}

test('any objective is minimized, in its own passes, and its figures are reported with each step', () =>
  withPolicy(async (policy) => {
    const tensors = tf.memory().numTensors;
    const sumOf = () => tf.tidy(() => tf.sum(policy.parameters.get('norm')!).dataSync()[0]!);
    const before = sumOf();
    const reports: StepReport[] = [];
    const passes: number[] = [];
    const objective: Objective<Pull> = {
      ...pullObjective,
      computePass(trained, pass, terms) {
        passes.push(pass.length);
        return pullObjective.computePass(trained, pass, terms);
      },
    };
    const result = await trainEpochs(
      policy,
      objective,
      pulls,
      { ...config, epochs: 120, tokensPerPass: 20, batchSize: 5, learningRate: 0.2 },
      createRng(1),
      { onStep: (report) => void reports.push(report) },
    );
    assert.is(result.steps, 120);
    assert.is(reports.length, 120);
    assert.equal(passes.slice(0, 6), [2, 2, 1, 2, 2, 1]);
    const [first] = reports as [StepReport];
    const mean = (of: (distance: number) => number) =>
      pulls.reduce((sum, { target, weight }) => sum + weight * of(Math.abs(before - target)), 0) / 15;
    near([first.loss], [mean((distance) => distance ** 2)], 1e-3);
    near([first.figures.distance!], [mean((distance) => distance)], 1e-4);
    assert.is(first.figures.examples, 5);
    assert.is(first.tokens, 35);
    // The weighted mean of the targets.
    near([sumOf()], [(20 + 42 + 66 + 92 + 120) / 15], 0.1);
    assert.is(policy.refreshes, 1);
    assert.is(tf.memory().numTensors, tensors);
  }));

test('each epoch deals the examples anew with a generator of its own', () =>
  withPolicy(async (policy) => {
    const { steps, computePasses } = notingPasses();
    await trainEpochs(policy, pullObjective, pulls, config, createRng(5), { computePasses });
    assert.equal(
      steps,
      [0, 1, 2].flatMap((epoch) => shuffledBatches(pulls, 2, createRng(5).split(`epoch-${epoch}`))),
    );
  }));

test('the loss of a training is that of its last epoch, each term counted once', () =>
  withPolicy(async (policy) => {
    const { steps, computePasses } = notingPasses();
    const uneven = { ...config, epochs: 2, batchSize: 4 };
    const { loss } = await trainEpochs(policy, pullObjective, pulls, uneven, createRng(1), { computePasses });
    const terms = steps.map(pullObjective.countTerms);
    assert.is(terms.length, 4);
    assert.is.not(terms[2], terms[3], 'steps of as many terms could not tell');
    near([loss], [(3 * terms[2]! + 4 * terms[3]!) / (terms[2]! + terms[3]!)], 1e-9);
  }));

test('the rate rises over its share of the steps and falls towards its share of the peak', async () => {
  const rates = async (overrides: Partial<EpochsConfig>) => {
    const seen: number[] = [];
    const announced: number[] = [];
    await withPolicy(async (policy) => {
      await trainEpochs(policy, pullObjective, pulls, { ...config, epochs: 2, ...overrides }, createRng(1), {
        computePasses: notingPasses().computePasses,
        onStart: (steps) => announced.push(steps),
        onStep: ({ learningRate }) => void seen.push(learningRate),
      });
    });
    assert.equal(announced, [seen.length]);
    return seen;
  };
  // A quarter of six steps is rounded up to two; then 0.03 + 0.02 · cos(π · k / 4) of the peak 0.05.
  near(
    await rates({ warmupFraction: 0.25, floorFraction: 0.2 }),
    [0.05 / 3, 0.1 / 3, ...[0, 1, 2, 3].map((k) => 0.03 + 0.02 * Math.cos((Math.PI * k) / 4))],
    1e-12,
  );
  // 1.2 of six steps are rounded down to one.
  near((await rates({ warmupFraction: 0.2, floorFraction: 1 })).slice(0, 3), [0.025, 0.05, 0.05], 1e-12);
});

test.run();
