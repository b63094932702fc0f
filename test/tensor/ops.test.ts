import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import {
  adamWStep,
  attention,
  causalAttention,
  embed,
  fusedLayer,
  heapBytes,
  type LayerWeights,
  linear,
  rmsNorm,
  rotary,
  swiglu,
  tf,
  tokenNll,
} from '../../src/tensor/index.ts';
import type { CausalShape } from '../../src/tensor/ops.ts';
import {
  assertAgrees,
  assertClose,
  evaluate,
  type Input,
  ids,
  type Operation,
  products,
  skipMissing,
  uniform,
} from './compare.ts';

const rng = createRng('ops');
const size = (most: number) => 1 + rng.int(most);

/** What `fusedLayer` computes, in parts. */
function composedLayer(
  x: tf.Tensor2D,
  layer: LayerWeights,
  cos: tf.Tensor4D,
  sin: tf.Tensor4D,
  shape: CausalShape,
  eps: number,
): tf.Tensor2D {
  const normed = rmsNorm(x, layer.inputNorm, eps);
  const [q, k, v] = [layer.query, layer.key, layer.value].map((weight) => linear(normed, weight)) as [
    tf.Tensor2D,
    tf.Tensor2D,
    tf.Tensor2D,
  ];
  const mixed = causalAttention(q, k, v, cos, sin, shape);
  const attended = tf.add(x, linear(mixed, layer.output)) as tf.Tensor2D;
  const inner = rmsNorm(attended, layer.postNorm, eps);
  return tf.add(attended, linear(swiglu(linear(inner, layer.gate), linear(inner, layer.up)), layer.down));
}

/** A causal mask over the last t of s positions; with `padding` each row of the batch also hides its first few. */
function causalBias(b: number, t: number, s: number, padding: boolean): Input {
  const hidden = Array.from({ length: b }, () => (padding ? rng.int(s - t + 1) : 0));
  const values = new Float32Array(b * t * s);
  for (let i = 0; i < values.length; i++) {
    const [column, row, batch] = [i % s, Math.floor(i / s) % t, Math.floor(i / (s * t))];
    const open = column <= row + s - t && column >= hidden[batch]!;
    values[i] = open ? 0 : -1e9;
  }
  return { shape: [b, 1, t, s], values };
}

/** Inputs of random sizes for each operation; the same operation runs composed on the cpu backend. */
const cases: Record<string, () => readonly [Operation, ...Input[]]> = {
  linear: () => {
    const [n, inner, outer] = [size(20), size(20), size(20)];
    return [linear, uniform(rng, [n, inner]), uniform(rng, [outer, inner])];
  },
  rmsNorm: () => {
    const [n, d] = [size(9), size(70)];
    return [(x, w) => rmsNorm(x, w, 1e-5), uniform(rng, [n, d], 3), uniform(rng, [d])];
  },
  swiglu: () => {
    const shape = [size(9), size(70)];
    return [swiglu, uniform(rng, shape, 8), uniform(rng, shape)];
  },
  rotary: () => {
    const [b, h, t, half] = [size(3), size(4), size(6), size(9)];
    const angles = uniform(rng, [rng.int(2) === 0 ? 1 : b, 1, t, half], 3).values;
    const shape: [number, number, number, number] = [angles.length / (t * half), 1, t, half];
    return [
      (x) => rotary(x, tf.tensor4d(angles.map(Math.cos), shape), tf.tensor4d(angles.map(Math.sin), shape)),
      uniform(rng, [b, h, t, 2 * half]),
    ];
  },
  causalAttention: () => {
    const [b, kv, group, half] = [size(3), size(3), size(3), size(9)];
    // More rows than a strip now and then.
    const t = rng.int(3) === 0 ? 60 + size(80) : size(20);
    const shape = { b, t, h: kv * group, kv, dh: 2 * half };
    const angles = uniform(rng, [t * half], 3).values;
    const at = (f: (x: number) => number) => tf.tensor4d(angles.map(f), [1, 1, t, half]);
    return [
      (q, k, v) => causalAttention(q, k, v, at(Math.cos), at(Math.sin), shape),
      uniform(rng, [b * t, kv * group * 2 * half], 2),
      uniform(rng, [b * t, kv * 2 * half], 2),
      uniform(rng, [b * t, kv * 2 * half]),
    ];
  },
  decoderLayer: () => {
    const [b, kv, group, half, f] = [size(3), size(2), size(2), size(9), size(20)];
    const t = rng.int(3) === 0 ? 60 + size(20) : size(12);
    const shape = { b, t, h: kv * group, kv, dh: 2 * half };
    const [d, wide, narrow] = [size(20), shape.h * shape.dh, kv * shape.dh];
    const angles = uniform(rng, [t * half], 3).values;
    const at = (g: (x: number) => number) => tf.tensor4d(angles.map(g), [1, 1, t, half]);
    const matrix = (out: number, inner: number) => uniform(rng, [out, inner], 1 / Math.sqrt(inner));
    return [
      (x, inputNorm, query, key, value, output, postNorm, gate, up, down) => {
        const layer = { inputNorm, query, key, value, output, postNorm, gate, up, down };
        const [cos, sin, eps] = [at(Math.cos), at(Math.sin), 1e-5];
        return (
          fusedLayer(x, layer, cos, sin, { ...shape, eps }) ?? composedLayer(x, layer, cos, sin, shape, eps)
        );
      },
      uniform(rng, [b * t, d]),
      uniform(rng, [d]),
      ...[matrix(wide, d), matrix(narrow, d), matrix(narrow, d), matrix(d, wide)],
      uniform(rng, [d]),
      ...[matrix(f, d), matrix(f, d), matrix(d, f)],
    ];
  },
  attention: () => {
    const [b, kv, group, t, dh] = [size(3), size(3), size(3), size(12), 2 * size(5)];
    const s = t + (rng.int(2) === 0 ? 0 : rng.int(9));
    const bias = causalBias(rng.int(2) === 0 ? 1 : b, t, s, true);
    return [
      (q, k, v) =>
        attention(q, k, v, tf.tensor4d(bias.values, bias.shape as [number, number, number, number])),
      uniform(rng, [b, kv * group, t, dh], 2),
      uniform(rng, [b, kv, s, dh], 2),
      uniform(rng, [b, kv, s, dh]),
    ];
  },
  embed: () => {
    const [v, d, n] = [size(9), size(20), size(30)];
    return [embed, uniform(rng, [v, d]), ids(rng, n, v)];
  },
  tokenNll: () => {
    const [n, v] = [size(9), size(70)];
    return [tokenNll, uniform(rng, [n, v], 9), ids(rng, n, v)];
  },
};

for (const [name, create] of Object.entries(cases)) {
  test(`${name} on wasm equals the composed operation on cpu, gradients included`, async () => {
    for (let i = 0; i < 10; i++) {
      const [operation, ...inputs] = create();
      await assertAgrees(operation, inputs);
    }
  });

  test(`${name} has the gradient that finite differences give`, async () => {
    await tf.setBackend('wasm');
    const [operation, ...inputs] = create();
    const [value, ...gradients] = await evaluate('wasm', operation, inputs, true);
    const upstream = uniform(createRng(7), value!.shape).values;
    const h = 1e-2;
    for (const [i, gradient] of gradients.entries()) {
      const at = rng.int(gradient.values.length);
      const loss = async (shift: number) => {
        const values = Float32Array.from(inputs[i]!.values);
        values[at]! += shift;
        const shifted = inputs.map((input, j) => (j === i ? { ...input, values } : input));
        const [out] = await evaluate('wasm', operation, shifted, false);
        return out!.values.reduce((sum, y, j) => sum + y * upstream[j]!, 0);
      };
      const slope = ((await loss(h)) - (await loss(-h))) / (2 * h);
      assertClose([gradient.values[at]!], [slope], `gradient ${i} at ${at}`, 5e-3);
    }
  });
}

test('what is added to a large residual is not rounded at its size, product by product', async () => {
  const [n, d, f] = [5, 12, 700];
  const shape = { b: 1, t: n, h: 22, kv: 11, dh: 26, eps: 1e-5 };
  const [wide, narrow] = [shape.h * shape.dh, shape.kv * shape.dh];
  for (const { name, install } of products) {
    await install();
    tf.tidy(() => {
      const ones = tf.ones([1, 1, n, shape.dh / 2]) as tf.Tensor4D;
      const matrix = (out: number, inner: number) => {
        const { values } = uniform(rng, [out, inner], 1 / Math.sqrt(inner));
        return tf.tensor2d(values, [out, inner]);
      };
      const norm = tf.ones([d]) as tf.Tensor1D;
      const layer = {
        ...{ inputNorm: norm, query: matrix(wide, d), key: matrix(narrow, d), value: matrix(narrow, d) },
        ...{
          output: matrix(d, wide),
          postNorm: norm,
          gate: matrix(f, d),
          up: matrix(f, d),
          down: matrix(d, f),
        },
      };
      const x = tf.fill([n, d], 3000) as tf.Tensor2D;
      const fused = fusedLayer(x, layer, tf.cos(ones), tf.sin(ones), shape)!.dataSync();
      const composed = composedLayer(x, layer, tf.cos(ones), tf.sin(ones), shape, shape.eps).dataSync();
      // Two roundings of a number of that size.
      composed.forEach((value, i) => {
        assert.ok(Math.abs(fused[i]! - value) <= 2 ** -11, `${name}: ${fused[i]} is not ${value}`);
      });
    });
  }
});

test('a step of AdamW is the same on wasm and cpu, moments included', async () => {
  const step = {
    ...{ beta1: 0.9, gradientShare: 0.07, beta2: 0.95, squareShare: 0.02, keepShare: 0.999 },
    ...{ rate: 0.01, correction: 3, epsilon: 1e-8 },
  };
  const values = uniform(rng, [3, 37]).values;
  const gradients = Array.from({ length: 4 }, () => uniform(rng, [3 * 37]).values as Float32Array);
  const results: Float32Array[][] = [];
  for (const backend of ['wasm', 'cpu']) {
    await tf.setBackend(backend);
    const state = {
      parameter: tf.variable(tf.tensor2d(values.slice(), [3, 37])),
      mean: tf.variable(tf.zeros([3, 37])),
      square: tf.variable(tf.zeros([3, 37])),
    };
    const { numTensors } = tf.memory();
    for (const gradient of gradients) adamWStep(state, gradient, step);
    assert.is(tf.memory().numTensors, numTensors);
    results.push(Object.values(state).map((variable) => variable.dataSync<'float32'>().slice()));
    tf.dispose(Object.values(state));
  }
  results[0]!.forEach((actual, i) => {
    assertClose(actual, results[1]![i]!, `part ${i}`, 1e-6);
  });
});

test('extreme logits give finite losses, and labels of zero gradient stay untouched', async () => {
  await tf.setBackend('wasm');
  tf.tidy(() => {
    const logits = tf.tensor2d([1e4, 0, -1e4, 0, 50, 100], [2, 3]);
    const labels = tf.tensor1d([2, 1], 'int32');
    assertClose(tokenNll(logits, labels).dataSync(), [2e4, 50], 'losses');
    const gradient = tf.grad((x: tf.Tensor) => tokenNll(x as tf.Tensor2D, labels))(
      logits,
      tf.tensor1d([0, 1]),
    );
    assertClose(gradient.dataSync(), [0, 0, 0, 0, -1, 1], 'gradient');
  });
});

test('a NaN is never hidden', async () => {
  await tf.setBackend('wasm');
  tf.tidy(() => {
    const bad = tf.tensor2d([1, Number.NaN, 2, 3, 4], [1, 5]);
    const fine = tf.ones([1, 5]) as tf.Tensor2D;
    for (const out of [
      rmsNorm(bad, tf.ones([5]), 1e-5),
      swiglu(bad, fine),
      tokenNll(bad, tf.tensor1d([0], 'int32')),
    ]) {
      assert.ok(out.dataSync().some(Number.isNaN));
    }
  });
});

test('a training step leaves no tensor behind and the heap stops growing', async () => {
  const tensors = {
    table: tf.variable(tf.randomUniform([11, 8], -1, 1, 'float32', 1)) as tf.Variable<tf.Rank.R2>,
    gain: tf.variable(tf.ones([8])) as tf.Variable<tf.Rank.R1>,
  };
  const step = () =>
    tf.tidy(() => {
      const tokens = tf.tensor1d([1, 2, 3, 4, 5, 6], 'int32');
      const angle = tf.ones([1, 1, 3, 2]) as tf.Tensor4D;
      const { value, grads } = tf.variableGrads(() => {
        const x = rmsNorm(embed(tensors.table, tokens), tensors.gain, 1e-5); // [6, 8]
        const heads = rotary(tf.reshape(x, [2, 2, 3, 4]), tf.cos(angle), tf.sin(angle));
        const mixed = attention(heads, heads, heads, tf.zeros([1, 1, 3, 3]));
        const y = swiglu(tf.reshape(mixed, [6, 8]), x);
        return tf.mean(tokenNll(linear(y, tensors.table), tokens)) as tf.Scalar;
      });
      for (const [name, gradient] of Object.entries(grads)) {
        assert.ok(gradient.dataSync().every(Number.isFinite), name);
      }
      return value.dataSync()[0]!;
    });
  for (const { name, install } of products) {
    await install();
    const first = step();
    const before = tf.memory();
    const heap = heapBytes();
    for (let i = 0; i < 20; i++) assert.is(step(), first, `same loss ${name}`);
    assert.is(tf.memory().numTensors, before.numTensors, name);
    assert.is(tf.memory().numDataBuffers, before.numDataBuffers, name);
    assert.is(heapBytes(), heap, name);
  }
  tf.dispose(tensors);
});

skipMissing(test);

test.run();
