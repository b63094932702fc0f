// AdamW by hand, and against torch.optim.AdamW.
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { startEngine, tf } from '../../src/tensor/index.ts';
import { type AdamWConfig, createAdamW } from '../../src/training/adamw.ts';

const config: AdamWConfig = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 10 };
const near = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number) => {
  assert.is(actual.length, expected.length);
  for (let i = 0; i < actual.length; i++) {
    assert.ok(Math.abs(actual[i]! - expected[i]!) <= tolerance, `[${i}] ${actual[i]} is not ${expected[i]}`);
  }
};

test.before(async () => {
  await startEngine();
});

/** A variable of these values; the test disposes it. */
const variable = (values: number[], shape: number[]): tf.Variable =>
  tf.tidy(() => tf.variable(tf.tensor(values, shape)));

const named = (variables: Record<string, tf.Variable>) => new Map(Object.entries(variables));

test('two steps worked out by hand', () => {
  const weight = variable([1], [1, 1]);
  const optimizer = createAdamW(named({ weight }), config);
  const step = (gradient: number) => optimizer.apply(new Map([['weight', Float32Array.of(gradient)]]), 0.1);
  near([step(0.5)], [0.5], 1e-7);
  // m̂ = 0.5, v̂ = 0.25: 1 · (1 − 0.1 · 0.1) − 0.1 · 0.5 / 0.5
  near(weight.dataSync(), [0.89], 1e-6);
  step(0.1);
  // m̂ = (0.9 · 0.05 + 0.01) / 0.19 = 0.289474, v̂ = (0.999 · 0.00025 + 0.00001) / 0.001999 = 0.129940
  near(weight.dataSync(), [0.89 * 0.99 - 0.1 * (0.289474 / Math.sqrt(0.12994))], 2e-6);
  weight.dispose();
});

test('vectors do not decay', () => {
  const norm = variable([1, 1], [2]);
  createAdamW(named({ norm }), config).apply(new Map([['norm', Float32Array.of(0, 0)]]), 0.1);
  assert.equal([...norm.dataSync()], [1, 1]);
  norm.dispose();
});

test('a parameter without a gradient stays as it is', () => {
  const weight = variable([1], [1, 1]);
  const idle = variable([1], [1, 1]);
  createAdamW(named({ weight, idle }), config).apply(new Map([['weight', Float32Array.of(1)]]), 0.1);
  assert.equal([...idle.dataSync()], [1]);
  assert.not.equal([...weight.dataSync()], [1]);
  tf.dispose([weight, idle]);
});

test('a step leaves no tensor behind and changes no copy of a parameter', () => {
  const weight = variable([1], [1, 1]);
  const copy = weight.clone();
  const optimizer = createAdamW(named({ weight }), config);
  const before = tf.memory().numTensors;
  optimizer.apply(new Map([['weight', Float32Array.of(1)]]), 0.1);
  assert.is(tf.memory().numTensors, before);
  assert.equal([...copy.dataSync()], [1]);
  tf.dispose([weight, copy]);
});

interface Fixture {
  readonly config: AdamWConfig;
  readonly initial: { readonly matrix: number[][]; readonly vector: number[] };
  readonly steps: readonly {
    readonly learningRate: number;
    readonly gradients: { readonly matrix: number[][]; readonly vector: number[] };
    readonly norm: number;
    readonly matrix: number[][];
    readonly vector: number[];
  }[];
}

test('five clipped steps agree with torch', () => {
  const fixture: Fixture = JSON.parse(readFileSync(new URL('golden/adamw.json', import.meta.url), 'utf8'));
  const matrix = variable(fixture.initial.matrix.flat(), [3, 4]);
  const vector = variable(fixture.initial.vector, [3]);
  const optimizer = createAdamW(named({ matrix, vector }), fixture.config);
  for (const { learningRate, gradients, ...expected } of fixture.steps) {
    const norm = optimizer.apply(
      new Map([
        ['matrix', Float32Array.from(gradients.matrix.flat())],
        ['vector', Float32Array.from(gradients.vector)],
      ]),
      learningRate,
    );
    near([norm], [expected.norm], 1e-5);
    near(matrix.dataSync(), expected.matrix.flat(), 1e-6);
    near(vector.dataSync(), expected.vector, 1e-6);
  }
  assert.ok(fixture.steps.some(({ norm }) => norm > fixture.config.clipNorm));
  assert.ok(fixture.steps.some(({ norm }) => norm < fixture.config.clipNorm));
  tf.dispose([matrix, vector]);
});

test.run();
