// The inner loops of the fused kernels: each function runs along the elements of vectors on TF.js' wasm heap.
import {
  add,
  assemble,
  type Code,
  div,
  lessThan,
  min,
  mul,
  neg,
  shiftLeft,
  sqrt,
  sub,
  unless,
  type WasmMemory,
} from './assembler.ts';
import { type Step, vectorFunction } from './vector-function.ts';

/**
 * e^x = 2^n · e^r with n = round(x / ln 2) and the polynomial of Cephes' expf for e^r: within 2 ulp. Below
 * -87.3 the result is 0, above 88.3 it stays at e^88.3; NaN stays NaN.
 */
function exp({ keep, constant }: Step<never>, x: Code): Code {
  const within = keep(min(x, constant(88.3)));
  // Added to this number a float loses its fraction, and its low bits become n + 127, the exponent of 2^n.
  const rounding = constant(1.5 * 2 ** 23 + 127);
  const rounded = keep(add(mul(within, constant(Math.LOG2E)), rounding));
  const n = keep(sub(rounded, rounding));
  const high = 0.693359375; // ln 2 in two parts, so that n · high is exact
  const low = -2.1219444e-4;
  const r = keep(sub(sub(within, mul(n, constant(high))), mul(n, constant(low))));
  const coefficients = [1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1];
  const tail = coefficients.reduce((p, c) => add(mul(p, r), constant(c)), constant(1.98756915e-4));
  const power = add(add(mul(mul(tail, r), r), r), constant(1)); // e^r
  return unless(mul(power, shiftLeft(rounded, 23)), lessThan(x, constant(-87.3)));
}

const sigmoid = (step: Step<never>, x: Code): Code => {
  const one = step.constant(1);
  return div(one, add(one, exp(step, neg(x))));
};

const functions = {
  /** Σ x · y */
  dot: vectorFunction({
    vectors: ['x', 'y'],
    reduce: 'sum',
    each: ({ read }) => mul(read.x, read.y),
  }),
  /** Σ x · y · z */
  tripleDot: vectorFunction({
    vectors: ['x', 'y', 'z'],
    reduce: 'sum',
    each: ({ read }) => mul(mul(read.x, read.y), read.z),
  }),
  /** max x; passes over NaN */
  maximum: vectorFunction({ vectors: ['x'], reduce: 'max', each: ({ read }) => read.x }),
  /** out = x, of any 4-byte type */
  copy: vectorFunction({
    vectors: ['x', 'out'],
    each: ({ read, store }) => void store('out', read.x),
  }),
  /** out = s */
  fill: vectorFunction({
    vectors: ['out'],
    scalars: ['s'],
    each: ({ read, store }) => void store('out', read.s),
  }),
  /** sum += x */
  accumulate: vectorFunction({
    vectors: ['x', 'sum'],
    each: ({ read, store }) => void store('sum', add(read.sum, read.x)),
  }),
  /** x *= s */
  scale: vectorFunction({
    vectors: ['x'],
    scalars: ['s'],
    each: ({ read, store }) => void store('x', mul(read.x, read.s)),
  }),
  /** out = x · w · s */
  scaledProduct: vectorFunction({
    vectors: ['x', 'w', 'out'],
    scalars: ['s'],
    each: ({ read, store }) => void store('out', mul(mul(read.x, read.w), read.s)),
  }),
  /** dx = s · (dy · w − x · pull), dw += dy · x · s */
  rmsNormBackward: vectorFunction({
    vectors: ['dy', 'x', 'w', 'dx', 'dw'],
    scalars: ['s', 'pull'],
    each: ({ read, store }) => {
      store('dx', mul(read.s, sub(mul(read.dy, read.w), mul(read.x, read.pull))));
      store('dw', add(read.dw, mul(mul(read.dy, read.x), read.s)));
      return undefined;
    },
  }),
  /** x = x · s + bias; returns max x */
  scaleAndBias: vectorFunction({
    vectors: ['x', 'bias'],
    scalars: ['s'],
    reduce: 'max',
    each: ({ read, keep, store }) => {
      const score = keep(add(mul(read.x, read.s), read.bias));
      store('x', score);
      return score;
    },
  }),
  /** x = exp(x − shift); returns Σ x */
  exponentiate: vectorFunction({
    vectors: ['x'],
    scalars: ['shift'],
    reduce: 'sum',
    each: (step) => {
      const { read, keep, store } = step;
      const power = keep(exp(step, keep(sub(read.x, read.shift))));
      store('x', power);
      return power;
    },
  }),
  /** Σ exp(x − shift) */
  sumExp: vectorFunction({
    vectors: ['x'],
    scalars: ['shift'],
    reduce: 'sum',
    each: (step) => exp(step, step.keep(sub(step.read.x, step.read.shift))),
  }),
  /** out = exp(x − shift) · s */
  scaledExp: vectorFunction({
    vectors: ['x', 'out'],
    scalars: ['shift', 's'],
    each: (step) => {
      const { read, keep, store } = step;
      store('out', mul(exp(step, keep(sub(read.x, read.shift))), read.s));
      return undefined;
    },
  }),
  /** out = exp((x − shift) · s); returns Σ out */
  temperedExp: vectorFunction({
    vectors: ['x', 'out'],
    scalars: ['shift', 's'],
    reduce: 'sum',
    each: (step) => {
      const { read, keep, store } = step;
      const power = keep(exp(step, keep(mul(sub(read.x, read.shift), read.s))));
      store('out', power);
      return power;
    },
  }),
  /** dp = p · (dp − mean) · s */
  softmaxBackward: vectorFunction({
    vectors: ['p', 'dp'],
    scalars: ['mean', 's'],
    each: ({ read, store }) => void store('dp', mul(mul(read.p, sub(read.dp, read.mean)), read.s)),
  }),
  /**
   * mean = β₁ · mean + a₁ · g, square = β₂ · square + a₂ · g²,
   * out = keepShare · x − rate · mean / (√(square · correction) + ε)
   */
  adamW: vectorFunction({
    vectors: ['x', 'g', 'mean', 'square', 'out'],
    scalars: ['beta1', 'a1', 'beta2', 'a2', 'keepShare', 'rate', 'correction', 'epsilon'],
    each: ({ read, keep, store }) => {
      const mean = keep(add(mul(read.beta1, read.mean), mul(read.a1, read.g)));
      const square = keep(add(mul(read.beta2, read.square), mul(read.a2, mul(read.g, read.g))));
      store('mean', mean);
      store('square', square);
      const width = add(sqrt(mul(square, read.correction)), read.epsilon);
      store('out', sub(mul(read.keepShare, read.x), div(mul(read.rate, mean), width)));
      return undefined;
    },
  }),
  /** out = gate · σ(gate) · up */
  swiglu: vectorFunction({
    vectors: ['gate', 'up', 'out'],
    each: (step) => {
      const { read, store } = step;
      store('out', mul(mul(read.gate, sigmoid(step, read.gate)), read.up));
      return undefined;
    },
  }),
  /** dgate = dy · up · σ · (1 + gate · (1 − σ)), dup = dy · gate · σ */
  swigluBackward: vectorFunction({
    vectors: ['dy', 'gate', 'up', 'dgate', 'dup'],
    each: (step) => {
      const { read, keep, store, constant } = step;
      const one = constant(1);
      const sigma = keep(sigmoid(step, read.gate));
      const through = keep(mul(read.dy, sigma));
      store('dgate', mul(mul(through, read.up), add(one, mul(read.gate, sub(one, sigma)))));
      store('dup', mul(through, read.gate));
      return undefined;
    },
  }),
  /** (outLeft, outRight) = (left, right) rotated by the angle of (cos, direction · sin) */
  rotate: vectorFunction({
    vectors: ['left', 'right', 'cos', 'sin', 'outLeft', 'outRight'],
    scalars: ['direction'],
    each: ({ read, keep, store }) => {
      const sin = keep(mul(read.sin, read.direction));
      store('outLeft', sub(mul(read.left, read.cos), mul(read.right, sin)));
      store('outRight', add(mul(read.right, read.cos), mul(read.left, sin)));
      return undefined;
    },
  }),
};

export type Vectors = ReturnType<typeof assembleVectors>;

/** Compiles the functions over TF.js' memory. They take byte addresses, then scalars, then the length. */
export function assembleVectors(memory: WasmMemory) {
  return assemble(functions, memory);
}
