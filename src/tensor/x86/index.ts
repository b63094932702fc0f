// The fused kernels' inner loops and the matrix products as machine code for x86-64 processors with AVX2, over TF.js' wasm
// heap. WebAssembly has vectors of four lanes and no fused multiply-add: this has eight, in products sixteen where there is
// AVX-512, and takes a third of the time or less.
import type { Heap } from '../wasm/heap.ts';
import type { HeadShape, Paging } from '../wasm/paged-attention.ts';
import type { Product } from '../wasm/product.ts';
import type { Vectors } from '../wasm/vectors.ts';
import { behind, findMachine, type Lanes, type Machine, NoRoom, Program } from './executable.ts';
import { Helper } from './helper.ts';
import { assembleMachinePaging, fitsMachineCode } from './paged-attention.ts';
import { type FrozenProducts, MachineProducts, type Packing, placeProducts } from './product.ts';
import { placeVectors } from './vectors.ts';

export type { FrozenProducts, Packing } from './product.ts';

export interface MachineCode {
  /** Those of the vector functions that are faster so. */
  readonly vectors: Partial<Vectors>;
  readonly product: Product;
  readonly packing: Packing;
  readonly frozen: FrozenProducts;
  /** Paged attention for heads of one shape; null where they do not fit. */
  readonly pagingFor: (shape: HeadShape) => Paging | null;
  /** sum += x, of arrays outside the heap and of the same size. */
  readonly addTo: (sum: Float32Array, x: Float32Array) => void;
  /** Σ x² of an array outside the heap. */
  readonly sumOfSquares: (x: Float32Array) => number;
  /** Of the vectors in products; they decide no bit of a result. */
  readonly lanes: Lanes;
  /** From here on large products are shared among so many threads, which decide no bit either. */
  readonly shareAmong: (threads: number) => void;
  /** Threads that the last product, or its last part, was shared among. */
  readonly threadsOfLast: () => number;
}

/** How many numbers are summed in float32: far more would lose what is small. */
const summed = 2 ** 16;

/** What was assembled over a heap's memory, by its widest vectors: it stays until the process ends. */
const assembled = new WeakMap<object, Map<Lanes, MachineCode>>();

/**
 * The functions over the heap, not checked yet, or the reason why this machine cannot have them. `most`: lanes of a vector at
 * most.
 */
export function assembleMachineCode(heap: Heap, most: Lanes = 16): MachineCode | string {
  const { memory } = heap.backend.wasm.asm;
  const known = assembled.get(memory) ?? new Map<Lanes, MachineCode>();
  assembled.set(memory, known);
  const machine = findMachine();
  if (typeof machine === 'string') return machine;
  const lanes = machine.lanes < most ? machine.lanes : most;
  const found = known.get(lanes) ?? assemble(heap, machine, lanes);
  known.set(lanes, found);
  return found;
}

function assemble(heap: Heap, machine: Machine, lanes: Lanes): MachineCode {
  const program = new Program(machine.system);
  const base = baseOf(heap, program);
  const placedProducts = placeProducts(program, lanes);
  const placed = placeVectors(program);
  const { accumulate, dot, ...others } = placed;
  program.seal();
  const products = new MachineProducts(program, placedProducts, heap, base, () =>
    Helper.start(machine.system),
  );
  const vectors = Object.entries(others).map(([name, placed]) => {
    return [name, behind(base, program.callable(placed), placed)];
  });
  const [add, multiply] = [program.callable(accumulate), program.callable(dot)];
  const addressOf = (numbers: Float32Array) => program.addressOf(numbers);
  const paging = new Map<string, Paging | null>();
  const pagingOf = (shape: HeadShape): Paging | null => {
    try {
      return assembleMachinePaging(
        new Program(machine.system),
        shape,
        placed.softmaxRows,
        heap,
        base,
        products.shareRows,
      );
    } catch (error) {
      // So many heads share keys and values that their code is too long: WebAssembly does it.
      if (error instanceof NoRoom) return null;
      throw error;
    }
  };
  return {
    pagingFor: (shape) => {
      const { heads, keyValueHeads, headSize } = shape;
      const key = [heads, keyValueHeads, headSize].join();
      if (!paging.has(key)) paging.set(key, fitsMachineCode(headSize) ? pagingOf(shape) : null);
      return paging.get(key)!;
    },
    addTo: (sum, x) => void add(addressOf(x), addressOf(sum), Math.min(sum.length, x.length)),
    sumOfSquares: (x) => {
      const start = addressOf(x);
      let sum = 0;
      for (let i = 0; i < x.length; i += summed) {
        sum += multiply(start + 4 * i, start + 4 * i, Math.min(summed, x.length - i));
      }
      return sum;
    },
    vectors: Object.fromEntries(vectors),
    product: products.multiply,
    packing: products,
    frozen: products,
    lanes,
    shareAmong: (threads) => products.shareAmong(threads),
    threadsOfLast: () => products.threadsOfLast,
  };
}

/** Where the heap begins, in the process. It may move when it grows. */
function baseOf(heap: Heap, program: Program): () => number {
  let [buffer, start] = [heap.buffer, program.addressOf(heap.buffer)];
  return () => {
    if (heap.buffer !== buffer) [buffer, start] = [heap.buffer, program.addressOf(heap.buffer)];
    return start;
  };
}
