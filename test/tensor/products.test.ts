import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { tf } from '../../src/tensor/index.ts';
import { assertAgrees, assertClose, evaluate, ids, products, skipMissing, uniform } from './compare.ts';

const rng = createRng('products');

for (const transposeA of [false, true]) {
  for (const transposeB of [false, true]) {
    const multiply = (a: tf.Tensor, b: tf.Tensor) => tf.matMul(a, b, transposeA, transposeB);
    const shapes = (batchA: number[], batchB: number[], m: number, k: number, n: number) =>
      [
        [...batchA, ...(transposeA ? [k, m] : [m, k])],
        [...batchB, ...(transposeB ? [n, k] : [k, n])],
      ] as const;
    const name = `a${transposeA ? 'ᵀ' : ''}·b${transposeB ? 'ᵀ' : ''}`;

    test(`${name} equals the cpu backend, gradients included, over random shapes`, async () => {
      for (let i = 0; i < 12; i++) {
        const batch = [[], [1], [3], [2, 3]][i % 4]!;
        const [m, k, n] = [1 + rng.int(40), 1 + rng.int(40), 1 + rng.int(40)];
        const [a, b] = shapes(batch, batch, m, k, n);
        await assertAgrees(multiply, [uniform(rng, a), uniform(rng, b)]);
      }
    });

    test(`${name} is right beyond one block of rows and of the inner dimension`, async () => {
      const [a, b] = shapes([2], [2], 131, 523, 15);
      await assertAgrees(multiply, [uniform(rng, a), uniform(rng, b)], { gradients: false });
    });

    test(`${name} broadcasts its batches`, async () => {
      for (const [batchA, batchB] of [
        [[5], [1]],
        [[1], [5]],
        [[4], []],
        [[2, 3], [3]],
        [
          [2, 1],
          [1, 3],
        ],
        [
          [3, 1, 2],
          [4, 1],
        ],
      ] as const) {
        const [m, k, n] = [1 + rng.int(9), 1 + rng.int(9), 1 + rng.int(9)];
        const [shapeA, shapeB] = shapes([...batchA], [...batchB], m, k, n);
        const [a, b] = [uniform(rng, shapeA), uniform(rng, shapeB)];
        // The cpu backend is asked matrix by matrix: it does not broadcast every one of these batches.
        const tile = (x: tf.Tensor, own: readonly number[]) => {
          const batch = tf.backend_util.assertAndGetBroadcastShape([...batchA], [...batchB]);
          const padded = [...Array<number>(batch.length - own.length).fill(1), ...own];
          const repeats = [...batch.map((size, axis) => size / padded[axis]!), 1, 1];
          return tf.tile(tf.reshape(x, [...padded, ...x.shape.slice(-2)]), repeats);
        };
        const tiled = (x: tf.Tensor, y: tf.Tensor) => multiply(tile(x, batchA), tile(y, batchB));
        const [expected] = await evaluate('cpu', tiled, [a, b], false);
        for (const { name: how, install } of products) {
          await install();
          const [actual] = await evaluate('wasm', multiply, [a, b], false);
          assert.equal(actual!.shape, expected!.shape);
          assertClose(actual!.values, expected!.values, `${how}, batches [${batchA}] and [${batchB}]`);
        }
      }
    });
  }
}

test('a product over an empty inner dimension is zero, and one without rows is empty', async () => {
  await assertAgrees((a, b) => tf.matMul(a, b), [uniform(rng, [3, 0]), uniform(rng, [0, 2])], {
    gradients: false,
  });
  await assertAgrees((a, b) => tf.matMul(a, b), [uniform(rng, [0, 4]), uniform(rng, [4, 2])], {
    gradients: false,
  });
});

test('products stay right while the heap grows under them', async () => {
  for (const { install } of products) {
    await install();
    tf.tidy(() => {
      const a = tf.ones([3, 1500]) as tf.Tensor2D;
      for (let i = 0; i < 6; i++) {
        const c = tf.matMul(a, a, true, false); // [1500, 1500], 9 MB each
        assert.is(tf.sum(c).dataSync()[0], 3 * 1500 * 1500);
      }
    });
  }
});

test('a saved tensor shares its data, and disposing one handle leaves the other', async () => {
  await tf.setBackend('wasm');
  const before = tf.memory();
  const x = tf.tensor1d([1, 2, 3]);
  const copy = tf.clone(x);
  assert.is(tf.memory().numDataBuffers, before.numDataBuffers + 1);
  x.dispose();
  assert.equal([...copy.dataSync()], [1, 2, 3]);
  copy.dispose();
  assert.is(tf.memory().numDataBuffers, before.numDataBuffers);
});

test('gathering rows equals the cpu backend, along any axis and for integers', async () => {
  for (const shape of [[7], [5, 3], [9, 2, 5], [64, 13]]) {
    const rows = ids(rng, 11, shape[0]!);
    await assertAgrees((x, rows) => tf.gather(x, rows), [uniform(rng, shape), rows]);
    await assertAgrees((x, rows) => tf.gather(x, tf.reshape(rows, [11, 1])), [uniform(rng, shape), rows]);
  }
  await assertAgrees((x, columns) => tf.gather(x, columns, 1), [uniform(rng, [4, 6]), ids(rng, 3, 6)]);
  await assertAgrees((x, rows) => tf.gather(x, rows), [ids(rng, 9, 100), ids(rng, 5, 9)], {
    gradients: false,
  });
  await tf.setBackend('wasm');
  assert.throws(() => tf.gather(tf.ones([3, 2]), tf.tensor1d([3], 'int32')), /index 3 is not in \[0, 3\)/);
});

test('UnsortedSegmentSum equals the cpu backend, leaves out negative ids and refuses those too high', async () => {
  for (const shape of [[7], [5, 3], [9, 2, 5], [64, 13]]) {
    const segments = 1 + rng.int(6);
    const x = uniform(rng, shape);
    const of = ids(rng, shape[0]!, segments);
    await assertAgrees((x, of) => tf.unsortedSegmentSum(x, of, segments), [x, of], { gradients: false });
  }
  await tf.setBackend('wasm');
  const sum = (...ids: number[]) => [
    ...tf.unsortedSegmentSum(tf.tensor1d([1, 2, 4]), tf.tensor1d(ids, 'int32'), 2).dataSync(),
  ];
  assert.equal(sum(0, -1, 1), [1, 4]);
  assert.throws(() => sum(0, 2, 1), /segment 2 is not below 2/);
});

skipMissing(test);

test.run();
