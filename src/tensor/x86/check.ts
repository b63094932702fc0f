// Machine code on trial: before it computes anything, each of its functions is held against its twin in WebAssembly on a
// small input. A mistake in it, or a processor that does something else, would be seen nowhere but in the results.
import { isMainThread } from 'node:worker_threads';
import { messageOf } from '../../domain/errors.ts';
import { blockTokens } from '../decoder.ts';
import { type FormulaName, formulas } from '../formulas.ts';
import { GrowingMatrix } from '../growing-matrix.ts';
import { bytes, type Heap, layOut, total } from '../wasm/heap.ts';
import {
  type HeadShape,
  layerBytes,
  type Paging,
  tokenRow,
  tokenRowNumbers,
} from '../wasm/paged-attention.ts';
import type { Product } from '../wasm/product.ts';
import type { Vectors } from '../wasm/vectors.ts';
import type { FrozenProducts, MachineCode } from './index.ts';

/** What machine code is held against. */
export interface Twins {
  readonly vectors: Vectors;
  readonly product: Product;
}

/** By how much results may differ, of 1 or of what is larger: a fused multiply-add rounds once, and sums have other orders. */
const tolerance = 1e-5;

/** Numbers between 0 and 1, no two the same. */
const someNumbers = (count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => ((i + 1) * 0.618034) % 1);

/** Throws where the numbers differ by more than rounding. */
function requireSame(name: string, ours: Float32Array, theirs: Float32Array): void {
  for (let i = 0; i < theirs.length; i++) {
    const expected = theirs[i]!;
    if (Math.abs(ours[i]! - expected) <= tolerance * Math.max(1, Math.abs(expected))) continue;
    throw new Error(`${name} gives ${ours[i]} where WebAssembly gives ${expected}`);
  }
}

/** Numbers on the heap that two functions work on, one after the other, from the same ones. */
class Trial {
  readonly #heap: Heap;
  readonly #start: number;
  readonly #before: Float32Array;

  /** From address `start` on, and what they are before each call. */
  constructor(heap: Heap, start: number, before: Float32Array) {
    this.#heap = heap;
    this.#start = start;
    this.#before = before;
  }

  /** Throws where what they return or leave differs. */
  compare(name: string, ours: () => unknown, theirs: () => unknown): void {
    requireSame(name, this.#outcomeOf(ours), this.#outcomeOf(theirs));
  }

  /** What the numbers are after the call, and behind them what it returned. */
  #outcomeOf(call: () => unknown): Float32Array {
    const { length } = this.#before;
    this.#heap.floats(this.#start, length).set(this.#before);
    const outcome = new Float32Array(length + 1);
    outcome[length] = Number(call() ?? 0);
    outcome.set(this.#heap.floats(this.#start, length));
    return outcome;
  }
}

/** Calls `body` with the addresses of parts of so many numbers: those that are on trial, and others beside them. */
function onTrial<Name extends string, Other extends string>(
  heap: Heap,
  tried: Readonly<Record<Name, number>>,
  others: Readonly<Record<Other, number>>,
  body: (trial: Trial, at: Readonly<Record<Name | Other, number>>) => void,
): void {
  const all = { ...tried, ...others };
  const room = heap.allocate([total(all)]);
  try {
    const [start, numbers] = [heap.addressOf(room), someNumbers(total(all))];
    heap.floats(start, numbers.length).set(numbers);
    body(new Trial(heap, start, numbers.subarray(0, total(tried))), layOut<Name | Other>(start, all));
  } finally {
    heap.free(room);
  }
}

/** Two turns of eight lanes and one under a mask. */
const length = 21;
/** Two rows of it, and some that nobody may write to. */
const vectorRoom = 2 * length + 8;

/** What the functions of rows take; vector i lies at `at(i)`. */
const rowArguments: Record<Exclude<keyof Vectors, FormulaName>, (at: (i: number) => number) => number[]> = {
  softmaxRows: (at) => [at(0), 2, length, length - 3, 1],
  softmaxBackwardRows: (at) => [at(0), at(1), 2, length],
  normRows: (at) => [at(0), at(1), at(2), 2, length, 1e-5],
  normBackwardRows: (at) => [at(0), at(1), at(2), at(3), at(4), 2, length, 1e-5],
};

function argumentsOf(name: keyof Vectors, at: (i: number) => number): number[] {
  if (name in rowArguments) return rowArguments[name as keyof typeof rowArguments](at);
  const { vectors, scalars } = formulas[name as FormulaName];
  return [...vectors.map((_, i) => at(i)), ...scalars.map((_, i) => 0.25 + i / 8), length];
}

/** Heights of a product that use each tile, alone and below others. */
const heights = [...Array.from({ length: 12 }, (_, i) => i + 1), 25];
/** A panel; and some with a part of another, which stands alone or beside a whole one. */
const [panel, widths] = [16, [42, 53]];
/** Two turns of four and three single ones; of columns, one of eight and three. */
const depth = 11;

function checkProducts(
  heap: Heap,
  { product, packing, frozen }: MachineCode,
  twin: Product,
  width: number,
): void {
  const tallest = Math.max(...heights);
  const operands = { a: tallest * depth, b: depth * width, packed: packing.size(depth, width) };
  onTrial(heap, { c: tallest * width + 16 }, operands, (trial, { a, b, c, packed }) => {
    const check = (m: number, n: number, transposeA: boolean, transposeB: boolean, adds: boolean) => {
      const [lda, ldb] = [transposeA ? m : depth, transposeB ? depth : n];
      const [ours, theirs] = [product, twin].map((multiply) => () => {
        multiply(transposeA, transposeB, m, n, depth, a, lda, b, ldb, c, n, adds);
      });
      trial.compare('a matrix product', ours!, theirs!);
    };
    heights.forEach((m, i) => {
      // Each tile sets and adds; how A and B are stored is nothing to it.
      for (const adds of [false, true]) check(m, width, (i & 1) > 0, (i & 2) > 0, adds);
    });
    check(tallest, panel, false, false, false);
    trial.compare(
      'a product with a packed matrix',
      () => {
        packing.pack(depth, width, b, packed);
        packing.product(tallest, width, depth, a, packed, c, true);
      },
      () => twin(false, true, tallest, width, depth, a, depth, b, depth, c, width, true),
    );
  });
  checkFrozenProducts(heap, frozen, twin, width);
}

function checkFrozenProducts(
  heap: Heap,
  { forward, backward }: FrozenProducts,
  twin: Product,
  width: number,
): void {
  const [tallest, out, inner] = [Math.max(...heights), width, depth];
  for (const format of ['float32', 'bfloat16'] as const) {
    onTrial(heap, { y: tallest * out }, { x: tallest * out, w: out * inner }, (trial, { x, y, w }) => {
      const numbers = heap.ints(w, out * inner);
      // What a bfloat16 has of a float32.
      if (format === 'bfloat16') for (let i = 0; i < numbers.length; i++) numbers[i]! &= 0xffff0000;
      const growing = new GrowingMatrix([out, inner], format);
      growing.add(heap.floats(w, out * inner));
      const frozen = growing.finish();
      for (const m of heights) {
        for (const adds of [false, true]) {
          trial.compare(
            `a product with a frozen matrix of ${format}`,
            () => forward(m, frozen, x, y, adds),
            () => twin(false, true, m, out, inner, x, inner, w, inner, y, out, adds),
          );
        }
      }
      trial.compare(
        `a product with a turned matrix of ${format}`,
        () => backward(tallest, frozen, x, y, true),
        () => twin(false, false, tallest, inner, out, x, out, w, inner, y, inner, true),
      );
    });
  }
}

/** Throws where a function of `code` does not what its twin does, and says which. Those of `pagingFor` are left out. */
export function checkMachineCode(heap: Heap, code: MachineCode, twins: Twins): void {
  onTrial(heap, { vectors: 5 * vectorRoom }, {}, (trial, { vectors }) => {
    const at = (i: number) => vectors + bytes(i * vectorRoom);
    for (const [name, run] of Object.entries(code.vectors)) {
      const args = argumentsOf(name as keyof Vectors, at);
      trial.compare(
        name,
        () => run(...args),
        () => twins.vectors[name as keyof Vectors](...args),
      );
    }
  });
  const [x, sum] = [someNumbers(length), someNumbers(2 * length).subarray(length)];
  const expected = sum.map((value, i) => value + x[i]!);
  code.addTo(sum, x);
  requireSame('addTo', sum, expected);
  const squares = x.reduce((total, value) => total + value * value, 0);
  requireSame('sumOfSquares', Float32Array.of(code.sumOfSquares(x)), Float32Array.of(squares));
  for (const width of widths) checkProducts(heap, code, twins.product, width);
}

/** What was found good, so that it is tried once. */
const approved = new WeakSet<Paging>();

/** Throws where paged attention for heads of this shape does not what its twin does. */
export function checkMachinePaging(heap: Heap, shape: HeadShape, machine: Paging, twin: Paging): void {
  if (approved.has(machine)) return;
  const { heads, keyValueHeads: kv, headSize: dh } = shape;
  // The layer does not begin where its block does.
  const [layer, block] = [bytes(8), 8 + layerBytes(shape) / bytes(1)];
  // Two tokens: one in the first block, one that sees that and some of the second.
  const tried = {
    ...{ q: 2 * heads * dh, k: 2 * kv * dh, v: 2 * kv * dh },
    ...{ first: block, second: block, cos: dh, sin: dh },
  };
  const others = { table: 2, tokens: 2 * tokenRowNumbers, scores: heads * 2 * blockTokens };
  onTrial(heap, tried, others, (trial, at) => {
    const { q, k, v, first, second, cos, sin, table, tokens, scores } = at;
    heap.ints(table, 2).set([first, second]);
    heap
      .ints(tokens, 2 * tokenRowNumbers)
      .set([
        ...tokenRow({ table, blocks: 1, visible: 4, cos, sin, block: first, slot: 3 }),
        ...tokenRow({ table, blocks: 2, visible: blockTokens + 5, cos, sin, block: second, slot: 4 }),
      ]);
    const args = [q, k, v, tokens, 2, layer, scores];
    trial.compare(
      'attendTokens',
      () => machine.attendTokens(...args),
      () => twin.attendTokens(...args),
    );
  });
  approved.add(machine);
}

/** Says in one line that machine code is given up, and why. Workers find the same as the main thread: one says it. */
export function warnOfMachineCode(error: unknown): void {
  if (!isMainThread) return;
  console.warn(
    `warning: machine code is not used, WebAssembly computes instead, more slowly: ${messageOf(error)}.`,
  );
}
