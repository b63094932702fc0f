// The inner loops of the fused kernels as machine code, and those that call them row by row: what ../wasm/vectors.ts is
// for WebAssembly, with addresses in the process.
import type { Formula } from '../expression.ts';
import { type FormulaName, formulas } from '../formulas.ts';
import {
  add,
  address,
  addTo,
  type Code,
  call,
  clear,
  countDown,
  divide,
  indexed,
  keep,
  load,
  loadNumber,
  move,
  multiply,
  procedure,
  type Register,
  r8,
  r9,
  r12,
  r13,
  r14,
  r15,
  rax,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  slot,
  squareRoot,
  stackArgument,
  storeNumber,
  subtractFrom,
  toFloat,
} from './assembler.ts';
import type { Placed, Program } from './executable.ts';
import { vectorFunction } from './vector-function.ts';

/** Places the formulas; returns where each is. */
function placeFormulas(program: Program): Record<FormulaName, number> {
  const entries = Object.entries(formulas).map(([name, formula]) => {
    return [name, program.place(vectorFunction(program, formula))] as const;
  });
  return Object.fromEntries(entries) as Record<FormulaName, number>;
}

/** softmaxRows(x, rows, columns, seen, step): the softmax of the first `seen` of each row, zeros behind; `seen` grows by `step`. */
function softmaxRows(program: Program, functions: Record<FormulaName, number>): Code {
  const [x, rows, columns, seen, step] = [rbx, r12, r13, r14, r15];
  return procedure(
    0,
    [...move(x, rdi), ...move(rows, rsi), ...move(columns, rdx), ...move(seen, rcx), ...move(step, r8)],
    countDown(
      rows,
      1,
      [...move(rdi, x), ...move(rsi, seen), ...call(functions.maximum)],
      [...move(rdi, x), ...move(rsi, seen), ...call(functions.exponentiate)],
      [...program.pool(rax), ...load(1, program.constant(rax, 1)), ...divide(0, 1, 0)],
      [...move(rdi, x), ...move(rsi, seen), ...call(functions.scale)],
      [...address(rdi, indexed(x, seen, 4)), ...move(rsi, columns), ...subtractFrom(rsi, seen)],
      [...clear(0), ...call(functions.fill)],
      [...address(x, indexed(x, columns, 4)), ...addTo(seen, step)],
    ),
  );
}

/** softmaxBackwardRows(p, dp, rows, columns): dp = p · (dp − Σ p · dp) for each row. */
function softmaxBackwardRows(program: Program, functions: Record<FormulaName, number>): Code {
  const [p, dp, rows, columns] = [rbx, r12, r13, r14];
  const vectors = [...move(rdi, p), ...move(rsi, dp), ...move(rdx, columns)];
  return procedure(
    0,
    [...move(p, rdi), ...move(dp, rsi), ...move(rows, rdx), ...move(columns, rcx)],
    countDown(
      rows,
      1,
      [...vectors, ...call(functions.dot)],
      [...program.pool(rax), ...loadNumber(1, program.constant(rax, 1))],
      [...vectors, ...call(functions.softmaxBackward)],
      [...address(p, indexed(p, columns, 4)), ...address(dp, indexed(dp, columns, 4))],
    ),
  );
}

/** Keeps eps, which comes in register 0, and d as a number, for `rowScale`. */
const keepNorm = (d: Register): Code => [
  ...storeNumber(slot(0), 0),
  ...toFloat(1, d),
  ...storeNumber(slot(1), 1),
];
/** Register 0 = 1 / √(mean(x²) + eps) of the row at `x`. */
const rowScale = (program: Program, dot: number, x: Register, d: Register): Code => [
  ...[...move(rdi, x), ...move(rsi, x), ...move(rdx, d), ...call(dot)],
  ...[...loadNumber(1, slot(1)), ...divide(0, 0, 1), ...loadNumber(1, slot(0)), ...add(0, 0, 1)],
  ...squareRoot(0, 0),
  ...[...program.pool(rax), ...load(1, program.constant(rax, 1)), ...divide(0, 1, 0)],
];

/** normRows(x, w, out, rows, d, eps): out = x · s · w for each row of x [rows, d], s = 1 / √(mean(x²) + eps). */
function normRows(program: Program, functions: Record<FormulaName, number>): Code {
  const [x, w, out, rows, d] = [rbx, r12, r13, r14, r15];
  return procedure(
    2,
    [...move(x, rdi), ...move(w, rsi), ...move(out, rdx), ...move(rows, rcx), ...move(d, r8)],
    keepNorm(d),
    countDown(
      rows,
      1,
      rowScale(program, functions.dot, x, d),
      [
        ...move(rdi, x),
        ...move(rsi, w),
        ...move(rdx, out),
        ...move(rcx, d),
        ...call(functions.scaledProduct),
      ],
      [...address(x, indexed(x, d, 4)), ...address(out, indexed(out, d, 4))],
    ),
  );
}

/**
 * normBackwardRows(dy, x, w, dx, dw, rows, d, eps): the gradient of `normRows`, with g = dy · w: dx = s · (g − x · s² ·
 * mean(g · x)), dw += dy · x · s.
 */
function normBackwardRows(program: Program, functions: Record<FormulaName, number>): Code {
  const [dy, x, dx, rows, d] = [rbx, r12, r13, r14, r15];
  const [w, dw, s] = [slot(2), slot(3), slot(4)];
  return procedure(
    5,
    [
      ...move(dy, rdi),
      ...move(x, rsi),
      ...keep(w, rdx),
      ...move(dx, rcx),
      ...keep(dw, r8),
      ...move(rows, r9),
    ],
    move(d, stackArgument(0)),
    keepNorm(d),
    countDown(
      rows,
      1,
      rowScale(program, functions.dot, x, d),
      storeNumber(s, 0),
      [...move(rdi, dy), ...move(rsi, x), ...move(rdx, w), ...move(rcx, d), ...call(functions.tripleDot)],
      [...loadNumber(1, slot(1)), ...divide(1, 0, 1), ...loadNumber(0, s)],
      [...multiply(1, 1, 0), ...multiply(1, 1, 0)],
      [...move(rdi, dy), ...move(rsi, x), ...move(rdx, w), ...move(rcx, dx), ...move(r8, dw), ...move(r9, d)],
      call(functions.rmsNormBackward),
      [dy, x, dx].flatMap((row) => address(row, indexed(row, d, 4))),
    ),
  );
}

/**
 * The functions that are faster so, placed: what they take and give, by the names that `Vectors` has. A call takes a tenth
 * of a microsecond longer than one into WebAssembly, so those that do little for each element stay there.
 */
export function placeVectors(program: Program) {
  const functions = placeFormulas(program);
  const ofFormula = (name: FormulaName): Placed => {
    const { vectors, scalars, reduce }: Formula = formulas[name];
    return {
      address: functions[name],
      pointers: vectors.length,
      parameters: [...scalars.map(() => 'float' as const), 'int64_t'],
      result: reduce === null ? 'void' : 'float',
    };
  };
  const ofRows = (build: typeof normRows, pointers: number, counts: number, eps = false): Placed => ({
    address: program.place(build(program, functions)),
    pointers,
    parameters: [...Array<'int64_t'>(counts).fill('int64_t'), ...(eps ? ['float' as const] : [])],
    result: 'void',
  });
  return {
    accumulate: ofFormula('accumulate'),
    dot: ofFormula('dot'),
    exponentiate: ofFormula('exponentiate'),
    sumExp: ofFormula('sumExp'),
    scaledExp: ofFormula('scaledExp'),
    temperedExp: ofFormula('temperedExp'),
    swiglu: ofFormula('swiglu'),
    swigluBackward: ofFormula('swigluBackward'),
    adamW: ofFormula('adamW'),
    softmaxRows: ofRows(softmaxRows, 1, 4),
    softmaxBackwardRows: ofRows(softmaxBackwardRows, 2, 2),
    normRows: ofRows(normRows, 3, 2, true),
    normBackwardRows: ofRows(normBackwardRows, 5, 2, true),
  };
}
