// The inner loops of the matrix product without BLAS: they keep a small tile of C in registers.
import {
  add,
  addNumbers,
  advance,
  assemble,
  type Code,
  combineLanes,
  constant,
  countDown,
  type FunctionBuilder,
  get,
  integer,
  load,
  loadNumber,
  loadSplat,
  mul,
  range,
  set,
  store,
  storeNumber,
  type WasmMemory,
  type Width,
  withIntegers,
} from './assembler.ts';

/** Sets the locals to `start`, `start` + `step`, `start` + 2 · `step` … */
const setSeries = (locals: readonly number[], start: number, step: number): Code =>
  locals.flatMap((local, i) => [
    ...set(local, get(i === 0 ? start : locals[i - 1]!)),
    ...(i === 0 ? [] : advance(local, get(step))),
  ]);

/**
 * C += A·B for `strips` tiles of `rows` by `columns`, one below the other. A(i, k) lies `i · stepI + k · stepK`
 * bytes behind a; the rows of B and C are contiguous, `rowB` and `rowC` bytes apart.
 */
function outerTiles(rows: number, columns: 8 | 4 | 1): FunctionBuilder {
  const builder = withIntegers('a', 'stepI', 'stepK', 'b', 'rowB', 'c', 'rowC', 'k', 'strips');
  const { a, stepI, stepK, b, rowB, c, rowC, k, strips } = builder.parameters;
  const width: Width = columns === 1 ? 1 : 4;
  const parts = range(columns / width);
  const [as, cs] = [builder.locals('i32', rows), builder.locals('i32', rows)];
  const [atB, left] = [builder.local('i32'), builder.local('i32')];
  const [bs, number] = [builder.locals('v128', parts.length), builder.local('v128')];
  const sums = range(rows).map(() => builder.locals('v128', parts.length));
  const forEach = (body: (sum: number, row: number, part: number) => Code): Code =>
    sums.flatMap((parts, row) => parts.flatMap((sum, part) => body(sum, row, part)));

  const turn = [
    ...parts.flatMap((part) => set(bs[part]!, load(width, get(atB), 16 * part))),
    ...range(rows).flatMap((row) => [
      ...set(number, loadSplat(get(as[row]!))),
      ...parts.flatMap((part) => {
        const sum = sums[row]![part]!;
        return set(sum, add(get(sum), mul(get(number), get(bs[part]!))));
      }),
      ...advance(as[row]!, get(stepK)),
    ]),
    ...advance(atB, get(rowB)),
  ];
  return builder.body(
    countDown(
      strips,
      1,
      [...setSeries(as, a, stepI), ...setSeries(cs, c, rowC), ...set(atB, get(b)), ...set(left, get(k))],
      forEach((sum, row, part) => set(sum, load(width, get(cs[row]!), 16 * part))),
      countDown(left, 1, turn),
      forEach((sum, row, part) => store(width, get(cs[row]!), get(sum), 16 * part)),
      range(rows).flatMap(() => [...advance(a, get(stepI)), ...advance(c, get(rowC))]),
    ),
  );
}

/**
 * C += A·Bᵀ for `strips` tiles of `rows` by `columns`, one below the other. The rows of A and B are contiguous, `rowA`
 * and `rowB` bytes apart; C(i, j) lies `i · rowC + j · columnC` bytes behind c.
 */
function innerTiles(rows: number, columns: number): FunctionBuilder {
  const builder = withIntegers('a', 'rowA', 'b', 'rowB', 'c', 'rowC', 'columnC', 'k', 'strips');
  const { a, rowA, b, rowB, c, rowC, columnC, k, strips } = builder.parameters;
  const [as, bs] = [builder.locals('i32', rows), builder.locals('i32', columns)];
  const [left, target] = [builder.local('i32'), builder.local('i32')];
  const [number, numbers] = [builder.local('v128'), builder.locals('v128', columns)];
  const sums = range(rows).map(() => builder.locals('v128', columns));

  const turns = (width: Width): Code =>
    countDown(
      left,
      width,
      numbers.flatMap((local, column) => set(local, load(width, get(bs[column]!)))),
      range(rows).flatMap((row) => [
        ...set(number, load(width, get(as[row]!))),
        ...sums[row]!.flatMap((sum, j) => set(sum, add(get(sum), mul(get(number), get(numbers[j]!))))),
      ]),
      [...as, ...bs].flatMap((address) => advance(address, integer(4 * width))),
    );
  const total = (local: number): Code =>
    combineLanes(
      'sum',
      range(4).map((lane) => ({ local, lane })),
    );
  return builder.body(
    countDown(
      strips,
      1,
      [...setSeries(as, a, rowA), ...setSeries(bs, b, rowB), ...set(left, get(k))],
      sums.flat().flatMap((sum) => set(sum, constant(0))),
      turns(4),
      turns(1),
      range(rows).flatMap((row) => [
        ...set(target, get(c)),
        ...sums[row]!.flatMap((sum) => [
          ...storeNumber(get(target), addNumbers(loadNumber(get(target)), total(sum))),
          ...advance(target, get(columnC)),
        ]),
        ...advance(a, get(rowA)),
        ...advance(c, get(rowC)),
      ]),
    ),
  );
}

export type Tiles = ReturnType<typeof assembleTiles>;

/** Compiles the tiles over TF.js' memory. They are named by rows × columns; 4 × 8 and 4 × 2 fill the registers. */
export function assembleTiles(memory: WasmMemory) {
  const functions = {
    outer4x8: outerTiles(4, 8),
    outer4x4: outerTiles(4, 4),
    outer4x1: outerTiles(4, 1),
    outer1x8: outerTiles(1, 8),
    outer1x4: outerTiles(1, 4),
    outer1x1: outerTiles(1, 1),
    inner4x2: innerTiles(4, 2),
    inner4x1: innerTiles(4, 1),
    inner1x2: innerTiles(1, 2),
    inner1x1: innerTiles(1, 1),
  };
  return assemble(functions, memory);
}
