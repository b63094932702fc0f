// Copies between rows that lie apart and rows that lie together: a head's share of [n, heads·dh] and [n, dh].
import {
  add,
  addIntegers,
  advance,
  assemble,
  type Code,
  countDown,
  FunctionBuilder,
  get,
  integer,
  load,
  mul,
  set,
  splat,
  store,
  sub,
  type WasmMemory,
  type Width,
  withIntegers,
} from './assembler.ts';

/** to[i, j] = from[i, j] for `rows` rows of `length` numbers, the rows `rowFrom` and `rowTo` bytes apart. */
function copyRows(): FunctionBuilder {
  const builder = withIntegers('from', 'rowFrom', 'to', 'rowTo', 'length', 'rows');
  const { from, rowFrom, to, rowTo, length, rows } = builder.parameters;
  const [source, target, left] = builder.locals('i32', 3) as [number, number, number];
  const turns = (width: Width): Code =>
    countDown(
      left,
      width,
      store(width, get(target), load(width, get(source))),
      advance(source, integer(4 * width)),
      advance(target, integer(4 * width)),
    );
  return builder.body(
    countDown(
      rows,
      1,
      [...set(source, get(from)), ...set(target, get(to)), ...set(left, get(length))],
      turns(4),
      turns(1),
      [...advance(from, get(rowFrom)), ...advance(to, get(rowTo))],
    ),
  );
}

/**
 * As `copyRows`, rotated: the pair of numbers j and j + half of row i by the angle of cos[i, j] and direction ·
 * sin[i, j], both [rows, half] and contiguous; the result times `scale`.
 */
export function rotateRows(): FunctionBuilder {
  const [i32, f32] = ['i32', 'f32'] as const;
  const builder = new FunctionBuilder({
    ...{ from: i32, rowFrom: i32, cos: i32, sin: i32, to: i32, rowTo: i32, half: i32, rows: i32 },
    ...{ direction: f32, scale: f32 },
  });
  const { from, rowFrom, cos, sin, to, rowTo, half, rows, direction, scale } = builder.parameters;
  const [left, right, outLeft, outRight, remaining] = builder.locals('i32', 5) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const [a, b, c, s, turn, size] = builder.locals('v128', 6) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const turns = (width: Width): Code =>
    countDown(
      remaining,
      width,
      [...set(a, load(width, get(left))), ...set(b, load(width, get(right)))],
      set(c, mul(load(width, get(cos)), get(size))),
      set(s, mul(load(width, get(sin)), get(turn))),
      store(width, get(outLeft), sub(mul(get(a), get(c)), mul(get(b), get(s)))),
      store(width, get(outRight), add(mul(get(b), get(c)), mul(get(a), get(s)))),
      [left, right, outLeft, outRight, cos, sin].flatMap((at) => advance(at, integer(4 * width))),
    );
  const twice = addIntegers(get(half), get(half));
  // Four bytes for each number of the first half.
  const secondHalf = (start: number): Code => addIntegers(get(start), addIntegers(twice, twice));
  return builder.body(
    set(size, splat(get(scale))),
    set(turn, mul(splat(get(direction)), get(size))),
    countDown(
      rows,
      1,
      [...set(left, get(from)), ...set(right, secondHalf(from))],
      [...set(outLeft, get(to)), ...set(outRight, secondHalf(to))],
      set(remaining, get(half)),
      turns(4),
      turns(1),
      [...advance(from, get(rowFrom)), ...advance(to, get(rowTo))],
    ),
  );
}

export type Strided = ReturnType<typeof assembleStrided>;

/** Compiles the functions over TF.js' memory. */
export function assembleStrided(memory: WasmMemory) {
  return assemble({ copyRows: copyRows(), rotateRows: rotateRows() }, memory);
}
