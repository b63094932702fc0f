// The gradient of one pass, and the sum of several: the same whichever is done first, and no array is let go that is
// still needed.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { startEngine, tf } from '../../src/tensor/index.ts';
import { computeGradients, ParameterLayout, PassSum } from '../../src/training/gradients.ts';
import type { Figures, PassShare } from '../../src/training/objective.ts';

test.before(async () => {
  await startEngine();
});

/** A pass over the parameters named; its numbers are such that float32 sums depend on their order. */
const pass = (loss: number, gradients: Record<string, number[]>, figures: Figures = {}) => ({
  loss,
  figures,
  gradients: new Map(Object.entries(gradients).map(([name, values]) => [name, Float32Array.from(values)])),
});
const passes = () => [
  pass(1, { a: [1e8, 1] }),
  pass(2, { a: [1, 2], b: [5] }),
  pass(3, { a: [-1e8, 3], b: [6] }),
  pass(4, {}),
];

test('passes are added in their order, whichever is done first', () => {
  const results = [
    [0, 1, 2, 3],
    [3, 2, 1, 0],
    [1, 0, 3, 2],
  ].map((order) => {
    const sum = new PassSum();
    const all = passes();
    for (const index of order) sum.add(index, all[index]!);
    return sum.total;
  });
  for (const { loss, gradients } of results) {
    assert.is(loss, 10);
    assert.equal([...gradients.get('a')!], [0, 6]); // 1e8 + 1 is 1e8 in float32
    assert.equal([...gradients.get('b')!], [11]);
  }
});

test('the arrays of a pass are released once they have been added, and never those that hold the sum', () => {
  const sum = new PassSum();
  const released: number[] = [];
  const all = passes();
  for (const index of [2, 1, 0, 3]) {
    sum.add(index, all[index]!, () => released.push(index));
    if (index > 0 && index < 3) assert.equal(released, [], 'those before it are not done');
  }
  // The sum of a is kept in the arrays of pass 0, that of b in those of pass 1.
  assert.equal(released, [2, 3]);
});

test('a pass that brings a new parameter is kept, wherever in it the parameter stands', () => {
  for (const names of [
    ['a', 'b'],
    ['b', 'a'],
  ]) {
    const sum = new PassSum();
    const released: number[] = [];
    const second = Object.fromEntries(names.map((name) => [name, [1]]));
    sum.add(0, pass(1, { a: [2] }), () => released.push(0));
    sum.add(1, pass(1, second), () => released.push(1));
    sum.add(2, pass(1, { a: [3], b: [4] }), () => released.push(2));
    assert.equal(released, [2]);
    assert.equal([...sum.total.gradients.get('a')!], [6]);
    assert.equal([...sum.total.gradients.get('b')!], [5]);
  }
});

test('a pass is in the sum only when those before it are, and losses are added in order, too', () => {
  const sum = new PassSum();
  sum.add(2, pass(1e16, { a: [4] }));
  sum.add(1, pass(1, { a: [2] }));
  assert.is(sum.total.loss, 0);
  assert.is(sum.total.gradients.size, 0);
  sum.add(0, pass(-1e16, { a: [1] }));
  // (−1e16 + 1) + 1e16; from behind it would be 1.
  assert.is(sum.total.loss, -1e16 + 1 + 1e16);
  assert.is(new PassSum().total.loss, 0);
  assert.equal([...sum.total.gradients.get('a')!], [7]);
});

test('figures are added in order as the losses are, each by its name', () => {
  const sum = new PassSum();
  sum.add(2, pass(1, {}, { margin: 1e16, right: 4 }));
  sum.add(0, pass(1, {}, { margin: -1e16, right: 1 }));
  assert.equal(sum.total.figures, { margin: -1e16, right: 1 });
  sum.add(1, pass(1, {}, { margin: 1, wrong: 3 }));
  assert.equal(sum.total.figures, { margin: -1e16 + 1 + 1e16, right: 5, wrong: 3 });
});

test('gradients are written where they are asked for, by the names of the policy', () => {
  const before = tf.memory().numTensors;
  const created = {
    used: tf.tidy(() => tf.variable(tf.tensor2d([[1, 2, 3]]))),
    idle: tf.tidy(() => tf.variable(tf.scalar(5))),
    scale: tf.tidy(() => tf.variable(tf.scalar(2))),
  };
  const parameters = new Map<string, tf.Variable>(Object.entries(created));
  const tensors = tf.memory().numTensors;
  const asked: [string, number][] = [];
  const all = new Float32Array(5).fill(9);
  const layout = new ParameterLayout(parameters);
  const computePass = (): PassShare => ({
    loss: tf.sum(tf.mul(tf.square(created.used), created.scale)),
    figures: { used: tf.sum(created.used), constant: tf.scalar(0.5) },
  });
  const { loss, figures, gradients } = computeGradients(parameters, computePass, (name, size) => {
    asked.push([name, size]);
    return layout.partOf(all, name);
  });
  assert.is(loss, 28);
  assert.equal(figures, { used: 6, constant: 0.5 });
  assert.equal(asked, [
    ['used', 3],
    ['scale', 1],
  ]);
  assert.equal([...gradients.keys()], ['used', 'scale']);
  assert.equal([...all], [4, 8, 12, 9, 14]);
  assert.equal([...computeGradients(parameters, computePass).gradients.get('used')!], [4, 8, 12]);
  assert.is(tf.memory().numTensors, tensors);
  tf.dispose(Object.values(created));
  assert.is(tf.memory().numTensors, before);
});

test('a layout gives each parameter its part of one array', () => {
  const parameters = new Map(
    Object.entries({ a: { size: 2 }, b: { size: 3 }, c: { size: 1 } }) as [string, tf.Variable][],
  );
  const layout = new ParameterLayout(parameters);
  assert.is(layout.size, 6);
  const all = Float32Array.of(0, 1, 2, 3, 4, 5);
  assert.equal(
    ['a', 'b', 'c'].map((name) => [...layout.partOf(all, name)]),
    [[0, 1], [2, 3, 4], [5]],
  );
  layout.partOf(all, 'b')[0] = 7;
  assert.is(all[2], 7);
});

test.run();
