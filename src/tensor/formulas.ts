// The inner loops of the fused kernels: what each does to the elements of its vectors.
import {
  add,
  constant,
  div,
  formula,
  lessThan,
  min,
  mul,
  neg,
  shiftLeft,
  sqrt,
  sub,
  unless,
  type Value,
} from './expression.ts';

/**
 * e^x = 2^n · e^r with n = round(x / ln 2) and the polynomial of Cephes' expf for e^r: within 2 ulp. Below
 * -87.3 the result is 0, above 88.3 it stays at e^88.3; NaN stays NaN.
 */
function exp(x: Value): Value {
  const within = min(x, constant(88.3));
  // Added to this number a float loses its fraction, and its low bits become n + 127, the exponent of 2^n.
  const rounding = constant(1.5 * 2 ** 23 + 127);
  const rounded = add(mul(within, constant(Math.LOG2E)), rounding);
  const n = sub(rounded, rounding);
  const high = 0.693359375; // ln 2 in two parts, so that n · high is exact
  const low = -2.1219444e-4;
  const r = sub(sub(within, mul(n, constant(high))), mul(n, constant(low)));
  const coefficients = [1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1];
  const tail = coefficients.reduce((p, c) => add(mul(p, r), constant(c)), constant(1.98756915e-4));
  const power = add(add(mul(mul(tail, r), r), r), constant(1)); // e^r
  return unless(mul(power, shiftLeft(rounded, 23)), lessThan(x, constant(-87.3)));
}

const one = constant(1);
const sigmoid = (x: Value): Value => div(one, add(one, exp(neg(x))));

export const formulas = {
  /** Σ x · y */
  dot: formula({ vectors: ['x', 'y'], reduce: 'sum', each: ({ x, y }) => ({ reduced: mul(x, y) }) }),
  /** Σ x · y · z */
  tripleDot: formula({
    vectors: ['x', 'y', 'z'],
    reduce: 'sum',
    each: ({ x, y, z }) => ({ reduced: mul(mul(x, y), z) }),
  }),
  /** max x; passes over NaN */
  maximum: formula({ vectors: ['x'], reduce: 'max', each: ({ x }) => ({ reduced: x }) }),
  /** out = x, of any 4-byte type */
  copy: formula({ vectors: ['x', 'out'], each: ({ x }) => ({ stores: { out: x } }) }),
  /** out = s */
  fill: formula({ vectors: ['out'], scalars: ['s'], each: ({ s }) => ({ stores: { out: s } }) }),
  /** sum += x */
  accumulate: formula({ vectors: ['x', 'sum'], each: ({ x, sum }) => ({ stores: { sum: add(sum, x) } }) }),
  /** x *= s */
  scale: formula({ vectors: ['x'], scalars: ['s'], each: ({ x, s }) => ({ stores: { x: mul(x, s) } }) }),
  /** out = x · w · s */
  scaledProduct: formula({
    vectors: ['x', 'w', 'out'],
    scalars: ['s'],
    each: ({ x, w, s }) => ({ stores: { out: mul(mul(x, w), s) } }),
  }),
  /** dx = s · (dy · w − x · pull), dw += dy · x · s */
  rmsNormBackward: formula({
    vectors: ['dy', 'x', 'w', 'dx', 'dw'],
    scalars: ['s', 'pull'],
    each: ({ dy, x, w, dw, s, pull }) => ({
      stores: { dx: mul(s, sub(mul(dy, w), mul(x, pull))), dw: add(dw, mul(mul(dy, x), s)) },
    }),
  }),
  /** x = exp(x − shift); returns Σ x */
  exponentiate: formula({
    vectors: ['x'],
    scalars: ['shift'],
    reduce: 'sum',
    each: ({ x, shift }) => {
      const power = exp(sub(x, shift));
      return { stores: { x: power }, reduced: power };
    },
  }),
  /** Σ exp(x − shift) */
  sumExp: formula({
    vectors: ['x'],
    scalars: ['shift'],
    reduce: 'sum',
    each: ({ x, shift }) => ({ reduced: exp(sub(x, shift)) }),
  }),
  /** out = exp(x − shift) · s */
  scaledExp: formula({
    vectors: ['x', 'out'],
    scalars: ['shift', 's'],
    each: ({ x, shift, s }) => ({ stores: { out: mul(exp(sub(x, shift)), s) } }),
  }),
  /** out = exp((x − shift) · s); returns Σ out */
  temperedExp: formula({
    vectors: ['x', 'out'],
    scalars: ['shift', 's'],
    reduce: 'sum',
    each: ({ x, shift, s }) => {
      const power = exp(mul(sub(x, shift), s));
      return { stores: { out: power }, reduced: power };
    },
  }),
  /** dp = p · (dp − mean) · s */
  softmaxBackward: formula({
    vectors: ['p', 'dp'],
    scalars: ['mean', 's'],
    each: ({ p, dp, mean, s }) => ({ stores: { dp: mul(mul(p, sub(dp, mean)), s) } }),
  }),
  /**
   * mean = β₁ · mean + a₁ · g, square = β₂ · square + a₂ · g²,
   * out = keepShare · x − rate · mean / (√(square · correction) + ε)
   */
  adamW: formula({
    vectors: ['x', 'g', 'mean', 'square', 'out'],
    scalars: ['beta1', 'a1', 'beta2', 'a2', 'keepShare', 'rate', 'correction', 'epsilon'],
    each: ({ x, g, mean, square, beta1, a1, beta2, a2, keepShare, rate, correction, epsilon }) => {
      const nextMean = add(mul(beta1, mean), mul(a1, g));
      const nextSquare = add(mul(beta2, square), mul(a2, mul(g, g)));
      const width = add(sqrt(mul(nextSquare, correction)), epsilon);
      const out = sub(mul(keepShare, x), div(mul(rate, nextMean), width));
      return { stores: { mean: nextMean, square: nextSquare, out } };
    },
  }),
  /** out = gate · σ(gate) · up */
  swiglu: formula({
    vectors: ['gate', 'up', 'out'],
    each: ({ gate, up }) => ({ stores: { out: mul(mul(gate, sigmoid(gate)), up) } }),
  }),
  /** dy becomes dgate = dy · up · σ · (1 + gate · (1 − σ)); dup = dy · gate · σ, out = gate · σ · up */
  swigluBackward: formula({
    vectors: ['dy', 'gate', 'up', 'dup', 'out'],
    each: ({ dy, gate, up }) => {
      const sigma = sigmoid(gate);
      const silu = mul(gate, sigma);
      const dgate = mul(mul(mul(dy, sigma), up), add(one, mul(gate, sub(one, sigma))));
      return { stores: { dy: dgate, dup: mul(dy, silu), out: mul(silu, up) } };
    },
  }),
};

export type FormulaName = keyof typeof formulas;
