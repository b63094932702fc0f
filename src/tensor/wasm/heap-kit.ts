// What the kernels that work on addresses of the wasm heap are made of.
import type { FrozenProducts, MachineCode } from '../x86/index.ts';
import type { Heap } from './heap.ts';
import type { Product } from './product.ts';
import type { Strided } from './strided.ts';
import type { Vectors } from './vectors.ts';

/** The heap and the functions that were compiled over it. */
export interface HeapKit {
  readonly heap: Heap;
  readonly vectors: Vectors;
  readonly strided: Strided;
  readonly product: Product;
  /** Null where this machine has none, or it is switched off. */
  readonly machineCode: MachineCode | null;
  /** Null where there never was machine code. */
  readonly frozen: FrozenProducts | null;
}
