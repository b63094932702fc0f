import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../../src/domain/rng.ts';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { checkGradients, createTinyPolicy, tinyConfig } from '../../support/llama.ts';

test.before(async () => {
  await startEngine();
});

const rng = createRng(5);
const randomIds = (n: number) => Array.from({ length: n }, () => 5 + rng.int(35));

test('no future token changes past logits', () => {
  const policy = createTinyPolicy();
  const ids = randomIds(12);
  const changed = [...ids.slice(0, 7), ...randomIds(5)];
  const logits = tf.tidy(() =>
    policy.computeLogits(tf.tensor2d([ids, changed], [2, 12], 'int32')).arraySync(),
  );
  assert.equal(logits.slice(0, 7), logits.slice(12, 12 + 7));
  assert.not.equal(logits[7], logits[12 + 7]);
  policy.dispose();
});

test('padding at the right changes no real token', () => {
  const policy = createTinyPolicy();
  const ids = randomIds(6);
  tf.tidy(() => {
    const alone = policy.computeLogits(tf.tensor2d([ids], [1, 6], 'int32'));
    const padded = policy.computeLogits(tf.tensor2d([[...ids, 0, 0, 0], randomIds(9)], [2, 9], 'int32'));
    const difference = tf.max(tf.abs(tf.sub(alone, tf.slice(padded, [0, 0], [6, 40]))));
    assert.ok(difference.dataSync()[0]! < 1e-4);
  });
  policy.dispose();
});

test('logits at chosen positions are those of the whole sequence', () => {
  const policy = createTinyPolicy();
  tf.tidy(() => {
    const ids = tf.tensor2d([randomIds(4), randomIds(4)], [2, 4], 'int32');
    const all = tf.gather(policy.computeLogits(ids), [6, 2]);
    const chosen = policy.computeLogits(ids, tf.tensor1d([6, 2], 'int32'));
    assert.ok(tf.max(tf.abs(tf.sub(all, chosen))).dataSync()[0]! < 1e-4);
  });
  policy.dispose();
});

test('every weight gets a gradient, and it matches a finite difference', () => {
  for (const tie_word_embeddings of [true, false]) {
    const policy = createTinyPolicy({ tie_word_embeddings }, { gain: 5 });
    const ids = tf.tensor2d([randomIds(9), randomIds(9)], [2, 9], 'int32');
    const loss = () => tf.mean(tf.square(policy.computeLogits(ids))) as tf.Scalar;
    checkGradients(policy.parameters, loss, 1e-6);
    ids.dispose();
    policy.dispose();
  }
});

test('selecting rows keeps the gradient', () => {
  const policy = createTinyPolicy();
  const ids = tf.tensor2d([randomIds(5)], [1, 5], 'int32');
  const query = policy.parameters.get('model.layers.0.self_attn.q_proj.weight')!;
  const gradientOf = (logits: (hidden: tf.Tensor2D) => tf.Tensor) =>
    tf.tidy(
      () =>
        tf.variableGrads(() => tf.sum(tf.square(logits(policy.computeHidden(ids)))) as tf.Scalar, [query])
          .grads[query.name]!,
    );
  const selected = gradientOf((hidden) => policy.project(hidden, tf.tensor1d([3], 'int32')));
  const sliced = gradientOf((hidden) => tf.slice(policy.project(hidden), [3, 0], [1, 40]));
  const scale = tf.tidy(() => tf.max(tf.abs(sliced)).dataSync()[0]!);
  const difference = tf.tidy(() => tf.max(tf.abs(tf.sub(selected, sliced))).dataSync()[0]!);
  assert.ok(scale > 0 && difference < 1e-4 * scale);
  tf.dispose([selected, sliced, ids]);
  policy.dispose();
});

test('a pass and a gradient leave no tensor behind', () => {
  const policy = createTinyPolicy();
  const step = () => {
    const ids = tf.tensor2d([randomIds(5)], [1, 5], 'int32');
    const { value, grads } = tf.variableGrads(
      () => tf.mean(policy.computeLogits(ids)) as tf.Scalar,
      [...policy.parameters.values()],
    );
    tf.dispose([ids, value, grads]);
  };
  step();
  const { numTensors } = tf.memory();
  step();
  assert.is(tf.memory().numTensors, numTensors);
  policy.dispose();
});

test('the sizes are those of the config', () => {
  const policy = createTinyPolicy({ head_dim: 6 });
  const { hidden_size: d } = tinyConfig;
  assert.equal(policy.parameters.get('model.layers.1.self_attn.q_proj.weight')!.shape, [4 * 6, d]);
  assert.equal(policy.parameters.get('model.layers.1.self_attn.k_proj.weight')!.shape, [2 * 6, d]);
  assert.equal(
    tf.tidy(() => policy.computeLogits(tf.tensor2d([[1, 2, 3]], [1, 3], 'int32')).shape),
    [3, 40],
  );
  policy.dispose();
});

test.run();
