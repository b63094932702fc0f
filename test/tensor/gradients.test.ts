// Our gradients against those that TF.js registers itself, to the bit, on both of its backends here.
import { createRequire } from 'node:module';
import { buildSync } from 'esbuild';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { startEngine, tf } from '../../src/tensor/index.ts';

await startEngine({ backend: 'wasm', blas: false });

const rng = createRng(7);
/** Numbers between 0.1 and 2.1: fit for a logarithm and a divisor. */
const random = (...shape: number[]) => {
  const values = Float32Array.from({ length: tf.util.sizeFromShape(shape) }, () => 0.1 + 2 * rng.next());
  return { shape, values };
};
type Input = ReturnType<typeof random>;
type Case = readonly [(...inputs: tf.Tensor[]) => tf.Tensor, ...inputs: Input[]];

/** Shapes that are alike, and that are broadcast either way. */
const both = (operation: (a: tf.Tensor, b: tf.Tensor) => tf.Tensor): Case[] => [
  [operation, random(3, 4), random(3, 4)],
  [operation, random(3, 4), random(4)],
  [operation, random(3, 1), random(2, 1, 4)],
];
const one = (operation: (x: tf.Tensor) => tf.Tensor, ...shape: number[]): Case => [
  operation,
  random(...shape),
];

/** By kernel. */
const cases: Record<string, Case[]> = {
  Add: both((a, b) => tf.add(a, b)),
  Sub: both((a, b) => tf.sub(a, b)),
  Multiply: both((a, b) => tf.mul(a, b)),
  RealDiv: both((a, b) => tf.div(a, b)),
  BatchMatMul: [
    [(a, b) => tf.matMul(a, b), random(2, 3, 4), random(2, 4, 5)],
    [(a, b) => tf.matMul(a, b, false, true), random(3, 4), random(5, 4)],
    [(a, b) => tf.matMul(a, b, true, false), random(4, 3), random(4, 5)],
    [(a, b) => tf.matMul(a, b, true, true), random(4, 3), random(5, 4)],
  ],
  Cast: [one((x) => tf.cast(x, 'float32'), 3)],
  Concat: [[(a, b) => tf.concat([a, b], -1), random(2, 3), random(2, 1)]],
  Exp: [one((x) => tf.exp(x), 3)],
  ExpandDims: [one((x) => tf.expandDims(x, 1), 3, 2)],
  GatherV2: [
    one((x) => tf.gather(x, [2, 0, 2]), 3, 2),
    one(
      (x) =>
        tf.gather(
          x,
          [
            [3, 0],
            [3, 1],
          ],
          1,
        ),
      3,
      4,
      2,
    ),
  ],
  Log: [one((x) => tf.log(x), 3)],
  Max: [one((x) => tf.max(x, 1), 3, 4), one((x) => tf.max(x, [0], true), 3, 4), one((x) => tf.max(x), 5)],
  Mean: [one((x) => tf.mean(x, 1, true), 3, 4), one((x) => tf.mean(x), 3, 4)],
  Neg: [one((x) => tf.neg(x), 3)],
  Reshape: [one((x) => tf.reshape(x, [2, 3]), 3, 2)],
  Rsqrt: [one((x) => tf.rsqrt(x), 3)],
  Sigmoid: [one((x) => tf.sigmoid(x), 3)],
  Slice: [one((x) => tf.slice(x, [1, 0], [2, -1]), 4, 3)],
  Softmax: [one((x) => tf.softmax(x), 3, 4)],
  Softplus: [one((x) => tf.softplus(x), 3)],
  SplitV: [
    one(
      (x) => {
        const [left, right] = tf.split(x, [1, 3], 1);
        return tf.concat([right!, left!], 1);
      },
      2,
      4,
    ),
  ],
  Square: [one((x) => tf.square(x), 3)],
  Sum: [one((x) => tf.sum(x, 0), 3, 4), one((x) => tf.sum(x, [1], true), 3, 4), one((x) => tf.sum(x), 5)],
  Transpose: [one((x) => tf.transpose(x, [2, 0, 1]), 2, 3, 4)],
};

/** Gradients of an operation's outputs, weighed, with respect to its inputs. */
function gradientsOf([operation, ...inputs]: Case): number[][] {
  return tf.tidy(() => {
    const compute = (...tensors: tf.Tensor[]) => {
      const out = operation(...tensors);
      const weights = Float32Array.from({ length: out.size }, (_, i) => 0.3 + 0.17 * i);
      return tf.sum(tf.mul(out, tf.tensor(weights, out.shape)));
    };
    const tensors = inputs.map(({ values, shape }) => tf.tensor(values, shape));
    return tf
      .grads(compute)(tensors)
      .map((gradient) => [...gradient.dataSync()]);
  });
}

const all = () => Object.values(cases).map((list) => list.map(gradientsOf));

test('every gradient is one of the cases', () => {
  assert.equal(Object.keys(cases).sort(), Object.keys(gradients).sort());
});

test('the numbers are those of the gradients that TF.js registers', async () => {
  const own: Record<string, number[][][][]> = {};
  for (const backend of ['wasm', 'cpu']) {
    await tf.setBackend(backend);
    own[backend] = all();
  }
  const ours = tf.getGradient('Add');
  // Node cannot load these modules; in one file it can. All copies of TF.js share one registry.
  const require = createRequire(import.meta.url);
  const entry = require.resolve('@tensorflow/tfjs-core/dist/register_all_gradients.js');
  const { outputFiles } = buildSync({ entryPoints: [entry], bundle: true, platform: 'node', write: false });
  new Function('require', outputFiles[0]!.text)(require);
  assert.is.not(tf.getGradient('Add'), ours);
  for (const backend of ['wasm', 'cpu']) {
    await tf.setBackend(backend);
    assert.equal(own[backend], all());
  }
});

test('a gradient that nobody registered is an error that names the operation', () => {
  tf.unregisterGradient('Softplus');
  assert.throws(() => gradientsOf(cases.Softplus![0]!), /Softplus/i);
});

test.run();
