// Seconds for one forward and backward pass of a synthetic Llama decoder built from src/tensor's operations.
// node --import tsx bench/tensor-step.ts [steps]   (OPTIMA_BACKEND and OPTIMA_BLAS choose the engine)
import { createRng } from '../src/domain/rng.ts';
import {
  attention,
  embed,
  heapBytes,
  linear,
  rmsNorm,
  rotary,
  startEngine,
  swiglu,
  tf,
  tokenNll,
} from '../src/tensor/index.ts';

const shape = { layers: 4, d: 128, heads: 4, ffn: 352, vocab: 512, batch: 32, time: 128 };
const steps = Number(process.argv[2] ?? 5);
const engine = await startEngine();
const rng = createRng(1);
const { layers, d, heads, ffn, vocab, batch, time } = shape;
const dh = d / heads;

const values = (n: number, scale: number) =>
  Float32Array.from({ length: n }, () => (rng.next() * 2 - 1) * scale);
const weight = (...dims: [number, number]) =>
  tf.variable(tf.tensor(values(tf.util.sizeFromShape(dims), 0.1), dims)) as tf.Variable<tf.Rank.R2>;
const gain = () => tf.variable(tf.ones([d])) as tf.Variable<tf.Rank.R1>;
const table = weight(vocab, d);
const blocks = Array.from({ length: layers }, () => ({
  norm1: gain(),
  q: weight(d, d),
  k: weight(d, d),
  v: weight(d, d),
  o: weight(d, d),
  norm2: gain(),
  gate: weight(ffn, d),
  up: weight(ffn, d),
  down: weight(d, ffn),
}));
const last = gain();
const ids = tf.tensor1d(Int32Array.from({ length: batch * time }, () => rng.int(vocab)));
const labels = tf.tensor1d(Int32Array.from({ length: batch * time }, () => rng.int(vocab)));
const bias = tf.tensor4d(
  Float32Array.from({ length: time * time }, (_, i) => (i % time <= Math.floor(i / time) ? 0 : -1e9)),
  [1, 1, time, time],
);
const angle = tf.tensor4d(values((time * dh) / 2, 3), [1, 1, time, dh / 2]);
const [cos, sin] = [tf.cos(angle), tf.sin(angle)];

const split = (x: tf.Tensor2D) =>
  tf.transpose(tf.reshape(x, [batch, time, heads, dh]), [0, 2, 1, 3]) as tf.Tensor4D; // [b, h, t, dh]
const merge = (x: tf.Tensor4D) => tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [batch * time, d]) as tf.Tensor2D;

function computeLoss(): tf.Scalar {
  let x = embed(table, ids); // [n, d]
  for (const block of blocks) {
    const h = rmsNorm(x, block.norm1, 1e-5);
    const q = rotary(split(linear(h, block.q)), cos, sin);
    const k = rotary(split(linear(h, block.k)), cos, sin);
    x = tf.add(x, linear(merge(attention(q, k, split(linear(h, block.v)), bias)), block.o));
    const m = rmsNorm(x, block.norm2, 1e-5);
    x = tf.add(x, linear(swiglu(linear(m, block.gate), linear(m, block.up)), block.down));
  }
  return tf.mean(tokenNll(linear(rmsNorm(x, last, 1e-5), table), labels)) as tf.Scalar;
}

function step(): number {
  return tf.tidy(() => {
    const { value, grads } = tf.variableGrads(computeLoss);
    for (const gradient of Object.values(grads)) gradient.dataSync();
    return value.dataSync()[0]!;
  });
}

for (let i = 0; i < 3; i++) step(); // until V8 has compiled what runs often
let loss = Number.NaN;
const seconds: number[] = [];
const cpuBefore = process.cpuUsage();
for (let i = 0; i < steps; i++) {
  const start = performance.now();
  loss = step();
  seconds.push((performance.now() - start) / 1000);
}
const cpu = process.cpuUsage(cpuBefore);
seconds.sort((a, b) => a - b);
const median = seconds[steps >> 1]!;
console.log(engine.description);
console.log(
  `${median.toFixed(3)} s/step (median of ${steps}; best ${seconds[0]!.toFixed(3)}, ` +
    `CPU time ${((cpu.user + cpu.system) / 1e6 / steps).toFixed(3)}), ` +
    `${Math.round((batch * time) / median)} tokens/s, heap ${Math.round(heapBytes() / 1e6)} MB, loss ${loss.toFixed(5)}`,
);
