// The inner loops of the fused kernels: each function runs along the elements of vectors on TF.js' wasm heap.
import {
  add,
  addIntegers,
  addNumbers,
  advance,
  assemble,
  type Code,
  call,
  countDown,
  div,
  divideNumbers,
  FunctionBuilder,
  get,
  integer,
  lessThan,
  min,
  mul,
  multiplyIntegers,
  multiplyNumbers,
  neg,
  number,
  set,
  shiftLeft,
  sqrt,
  squareRoot,
  sub,
  subtractIntegers,
  toFloat,
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

const vectorFunctions = {
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
};

/** Calls one of the functions above; they come first in the module. */
const apply = (name: keyof typeof vectorFunctions, ...values: Code[]): Code =>
  call(Object.keys(vectorFunctions).indexOf(name), ...values);

/** `count` · 4 */
const bytesOf = (count: number): Code => multiplyIntegers(get(count), integer(4));

/**
 * For each of `rows` rows of `columns` scores at `x`: the softmax of the first `seen` of them, zeros behind; each row
 * sees `step` more than the one above.
 */
function softmaxRows(): FunctionBuilder {
  const i32 = 'i32' as const;
  const builder = new FunctionBuilder({ x: i32, rows: i32, columns: i32, seen: i32, step: i32 });
  const { x, rows, columns, seen, step } = builder.parameters;
  const sum = builder.local('f32');
  return builder.body(
    countDown(
      rows,
      1,
      set(sum, apply('exponentiate', get(x), apply('maximum', get(x), get(seen)), get(seen))),
      apply('scale', get(x), divideNumbers(number(1), get(sum)), get(seen)),
      apply('fill', addIntegers(get(x), bytesOf(seen)), number(0), subtractIntegers(get(columns), get(seen))),
      advance(x, bytesOf(columns)),
      advance(seen, get(step)),
    ),
  );
}

/** For each row of weights p and their gradients dp: dp = p · (dp − Σ p · dp). */
function softmaxBackwardRows(): FunctionBuilder {
  const i32 = 'i32' as const;
  const builder = new FunctionBuilder({ p: i32, dp: i32, rows: i32, columns: i32 });
  const { p, dp, rows, columns } = builder.parameters;
  return builder.body(
    countDown(
      rows,
      1,
      apply(
        'softmaxBackward',
        get(p),
        get(dp),
        apply('dot', get(p), get(dp), get(columns)),
        number(1),
        get(columns),
      ),
      advance(p, bytesOf(columns)),
      advance(dp, bytesOf(columns)),
    ),
  );
}

/** 1 / √(mean(x²) + eps) of the row at `x`. */
const rowScale = (x: number, d: number, eps: number): Code =>
  divideNumbers(
    number(1),
    squareRoot(addNumbers(divideNumbers(apply('dot', get(x), get(x), get(d)), toFloat(get(d))), get(eps))),
  );

/** out = x · s · w for each row of x [rows, d], s = 1 / √(mean(x²) + eps). */
function normRows(): FunctionBuilder {
  const i32 = 'i32' as const;
  const builder = new FunctionBuilder({ x: i32, w: i32, out: i32, rows: i32, d: i32, eps: 'f32' });
  const { x, w, out, rows, d, eps } = builder.parameters;
  return builder.body(
    countDown(
      rows,
      1,
      apply('scaledProduct', get(x), get(w), get(out), rowScale(x, d, eps), get(d)),
      advance(x, bytesOf(d)),
      advance(out, bytesOf(d)),
    ),
  );
}

/** The gradient of `normRows`, with g = dy · w: dx = s · (g − x · s² · mean(g · x)), dw += dy · x · s. */
function normBackwardRows(): FunctionBuilder {
  const i32 = 'i32' as const;
  const builder = new FunctionBuilder({
    ...{ dy: i32, x: i32, w: i32, dx: i32, dw: i32, rows: i32, d: i32 },
    eps: 'f32',
  });
  const { dy, x, w, dx, dw, rows, d, eps } = builder.parameters;
  const s = builder.local('f32');
  const pull = multiplyNumbers(
    multiplyNumbers(get(s), get(s)),
    divideNumbers(apply('tripleDot', get(dy), get(x), get(w), get(d)), toFloat(get(d))),
  );
  return builder.body(
    countDown(
      rows,
      1,
      set(s, rowScale(x, d, eps)),
      apply('rmsNormBackward', get(dy), get(x), get(w), get(dx), get(dw), get(s), pull, get(d)),
      [dy, x, dx].flatMap((at) => advance(at, bytesOf(d))),
    ),
  );
}

/** All of them by name, for modules that call them: there they come first, in this order. */
export const vectorModule = {
  ...vectorFunctions,
  softmaxRows: softmaxRows(),
  softmaxBackwardRows: softmaxBackwardRows(),
  normRows: normRows(),
  normBackwardRows: normBackwardRows(),
};

export type Vectors = ReturnType<typeof assembleVectors>;

/** Compiles the functions over TF.js' memory. They take byte addresses, then scalars, then the length. */
export function assembleVectors(memory: WasmMemory) {
  return assemble(vectorModule, memory);
}
