// The loop that every algorithm shares: what a plan is asked and told, and how a run ends early.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import { startEngine, tf } from '../../src/tensor/index.ts';
import type { AdamW } from '../../src/training/adamw.ts';
import {
  runTraining,
  type StepReport,
  type StepResult,
  type TrainingOptions,
  type TrainingPlan,
} from '../../src/training/loop.ts';
import { constant } from '../../src/training/schedule.ts';
import { createToyPolicy, type ToyPolicy } from './toy-policy.ts';

const optimizer = { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clipNorm: 1 };
const fine: StepResult = { loss: 2, gradNorm: 0.5, tokens: 7, figures: { margin: 3 } };

test.before(async () => {
  await startEngine();
});

let policy: ToyPolicy;
let weights: number[];
let tensors: number;
test.before.each(() => {
  policy = createToyPolicy();
  weights = policy.weights();
  tensors = tf.memory().numTensors;
});
test.after.each(() => {
  policy.dispose();
});

/** Moves every weight, so that the step needs the optimizer's state. */
const move = (adamW: AdamW, rate = 0.1) =>
  adamW.apply(
    new Map(Array.from(policy.parameters, ([name, { size }]) => [name, new Float32Array(size).fill(1)])),
    rate,
  );

/** Runs a plan whose steps move the weights and report what `step` gives. */
const run = (steps: number, step: (index: number) => StepResult, options?: TrainingOptions) => {
  const plan: TrainingPlan = {
    steps,
    schedule: constant(0.1),
    optimizer,
    async takeStep(adamW, index) {
      move(adamW);
      return step(index);
    },
  };
  return runTraining(policy, plan, options);
};

const rejection = (running: Promise<unknown>): Promise<OptimaError> =>
  running.then(
    () => assert.unreachable('resolved') as never,
    (error) => error,
  );

/** Whatever happened, the hash was computed once from the last weights, and no tensor is left. */
function assertTidy() {
  assert.is(policy.refreshes, 1);
  assert.equal(policy.hashedWeights, policy.weights());
  assert.is(tf.memory().numTensors, tensors);
}

test('every step is asked for once with its rate, and its report handed on before the next', async () => {
  const events: unknown[] = [];
  const reports = await runTraining(
    policy,
    {
      steps: 3,
      schedule: (step) => 10 + step,
      optimizer,
      async takeStep(adamW, index, rate) {
        events.push(['step', index, rate]);
        move(adamW);
        return { ...fine, tokens: index };
      },
    },
    {
      onStart: (steps) => events.push(['start', steps]),
      onStep: async (report) => {
        events.push(report);
        // Long enough for a loop that does not wait to be at its next step.
        for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
        events.push('noted');
      },
    },
  );
  const expected = [0, 1, 2].map((step) => ({
    step,
    steps: 3,
    learningRate: 10 + step,
    loss: 2,
    gradNorm: 0.5,
    tokens: step,
    figures: { margin: 3 },
  }));
  assert.equal(events, [
    ['start', 3],
    ...expected.flatMap((report) => [['step', report.step, report.learningRate], report, 'noted']),
  ]);
  assert.equal(reports, expected);
  assert.not.equal(policy.weights(), weights);
  assertTidy();
});

test('the event loop turns before every step', async () => {
  let turns = 0;
  let waiting = true;
  const turn = () => {
    turns++;
    if (waiting) setImmediate(turn);
  };
  setImmediate(turn);
  const seen: number[] = [];
  await run(5, () => {
    seen.push(turns);
    return fine;
  });
  waiting = false;
  assert.equal(seen, [1, 2, 3, 4, 5]);
});

test('a loss or a gradient that is not finite restores the weights of the start and reports what it was', async () => {
  for (const broken of [
    { loss: Number.NaN },
    { loss: Number.POSITIVE_INFINITY },
    { gradNorm: Number.NaN },
    { gradNorm: Number.POSITIVE_INFINITY },
  ]) {
    policy.refreshes = 0;
    const noted: StepReport[] = [];
    const result = { ...fine, ...broken };
    const error = await rejection(
      run(3, (index) => (index === 1 ? result : fine), { onStep: (report) => void noted.push(report) }),
    );
    assert.instance(error, OptimaError);
    assert.is(error.code, 'training.diverged');
    assert.is(
      error.message,
      `Training diverged at step 1 of 3: loss ${result.loss}, gradient norm ${result.gradNorm}.`,
    );
    assert.equal(
      noted.map(({ step }) => step),
      [0],
    );
    assert.equal(policy.weights(), weights);
    assertTidy();
  }
});

test('an abort stops between two steps and leaves what the last step left', async () => {
  const controller = new AbortController();
  const after: number[][] = [];
  const error = await rejection(
    run(3, () => fine, {
      signal: controller.signal,
      onStep: () => {
        if (after.push(policy.weights()) === 2) controller.abort();
      },
    }),
  );
  assert.is(error.code, 'interrupted');
  assert.is(error.message, 'Training was interrupted after step 2 of 3.');
  assert.is(after.length, 2);
  assert.equal(policy.weights(), after[1]);
  assert.not.equal(policy.weights(), weights);
  assertTidy();
});

test('a run that is aborted while it is announced takes no step', async () => {
  const controller = new AbortController();
  const error = await rejection(
    run(3, () => assert.unreachable() as never, {
      signal: controller.signal,
      onStart: () => controller.abort(),
    }),
  );
  assert.is(error.message, 'Training was interrupted after step 0 of 3.');
  assert.equal(policy.weights(), weights);
  assertTidy();
});

test('what a step or its listener throws ends the run, and the hash fits the weights all the same', async () => {
  const boom = new Error('boom');
  const fail = () => {
    throw boom;
  };
  const failures = [
    () => run(2, fail),
    () => run(2, () => fine, { onStep: fail }),
    () => run(2, () => fine, { onStep: async () => fail() }),
  ];
  for (const failure of failures) {
    policy.refreshes = 0;
    assert.is(await rejection(failure()), boom);
    assertTidy();
  }
});

test('a run ends only when the hash has been computed', async () => {
  let hashed = false;
  const slow = {
    ...policy,
    async refreshHash() {
      await new Promise((resolve) => setImmediate(resolve));
      hashed = true;
      return 'slow' as PolicyHash;
    },
  };
  const plan = { steps: 0, schedule: constant(1), optimizer, takeStep: async () => fine };
  assert.equal(await runTraining(slow, plan), []);
  assert.ok(hashed);
});

test.run();
