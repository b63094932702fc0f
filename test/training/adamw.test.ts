// AdamW by hand, and against torch.optim.AdamW.
import { readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { startEngine, tf } from '../../src/tensor/index.ts';
import { type AdamWConfig, createAdamW } from '../../src/training/adamw.ts';
import { near } from './toy-policy.ts';

const config: AdamWConfig = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 10 };
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

test('matrices decay with the rate, vectors do not', () => {
  const matrix = variable([1, -2], [2, 1]);
  const norm = variable([1, 1], [2]);
  createAdamW(named({ matrix, norm }), config).apply(
    new Map([
      ['matrix', Float32Array.of(0, 0)],
      ['norm', Float32Array.of(0, 0)],
    ]),
    0.2,
  );
  near(matrix.dataSync(), [0.98, -1.96], 1e-6);
  assert.equal([...norm.dataSync()], [1, 1]);
  tf.dispose([matrix, norm]);
});

test('the norm that is clipped is that of all gradients together, and is returned unclipped', () => {
  const variables = { a: variable([0], [1, 1]), b: variable([0], [1]) };
  // With so large an epsilon and no memory a step is 0.1 · g / (|g| + 1).
  const plain = { ...config, beta1: 0, beta2: 0, epsilon: 1, weightDecay: 0, clipNorm: 2.5 };
  const gradients = new Map([
    ['a', Float32Array.of(3)],
    ['b', Float32Array.of(-4)],
  ]);
  assert.is(createAdamW(named(variables), plain).apply(gradients, 0.1), 5);
  near(variables.a.dataSync(), [-0.1 * (1.5 / 2.5)], 1e-6);
  near(variables.b.dataSync(), [0.1 * (2 / 3)], 1e-6);
  // As torch does it, a gradient of just the largest norm is scaled by clipNorm / (clipNorm + 1e-6).
  const small = variable([0], [1]);
  createAdamW(named({ small }), { ...plain, epsilon: 1e-6, clipNorm: 1e-6 }).apply(
    new Map([['small', Float32Array.of(1e-6)]]),
    1,
  );
  near(small.dataSync(), [-1 / 3], 1e-4);
  tf.dispose([...Object.values(variables), small]);
});

test('a parameter without a gradient stays as it is', () => {
  const weight = variable([1], [1, 1]);
  const idle = variable([1], [1, 1]);
  const optimizer = createAdamW(named({ weight, idle }), { ...config, weightDecay: 0 });
  optimizer.apply(new Map([['weight', Float32Array.of(1)]]), 0.1);
  assert.equal([...idle.dataSync()], [1]);
  near(weight.dataSync(), [0.9], 1e-6);
  // Its first gradient comes in the optimizer's second step: m̂ = 0.1 / 0.19, v̂ = 0.001 / 0.001999.
  optimizer.apply(new Map([['idle', Float32Array.of(1)]]), 0.1);
  near(idle.dataSync(), [1 - 0.1 * (0.1 / 0.19 / Math.sqrt(0.001 / 0.001999))], 1e-5);
  near(weight.dataSync(), [0.9], 1e-6);
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

test('the moments are freed, and the parameters are not', () => {
  const weight = variable([1], [1, 1]);
  const before = tf.memory().numTensors;
  const optimizer = createAdamW(named({ weight }), config);
  assert.is(tf.memory().numTensors, before + 2);
  optimizer.dispose();
  assert.is(tf.memory().numTensors, before);
  assert.equal([...weight.dataSync()], [1]);
  weight.dispose();
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
