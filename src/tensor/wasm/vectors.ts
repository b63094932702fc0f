// The inner loops of the fused kernels as WebAssembly over TF.js' heap, and those that call them row by row.
import { type FormulaName, formulas } from '../formulas.ts';
import {
  addIntegers,
  addNumbers,
  advance,
  assemble,
  type Code,
  call,
  countDown,
  divideNumbers,
  FunctionBuilder,
  get,
  integer,
  multiplyIntegers,
  multiplyNumbers,
  number,
  set,
  squareRoot,
  subtractIntegers,
  toFloat,
  type WasmMemory,
} from './assembler.ts';
import { vectorFunction } from './vector-function.ts';

const vectorFunctions = Object.fromEntries(
  Object.entries(formulas).map(([name, formula]) => [name, vectorFunction(formula)]),
) as Record<FormulaName, FunctionBuilder>;

/** Calls one of the functions above; they come first in the module. */
const apply = (name: FormulaName, ...values: Code[]): Code =>
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
