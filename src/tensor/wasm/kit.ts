// What the kernels that work on addresses of the wasm heap are made of.
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
  /** Whether a BLAS computes the products of more than a few rows. */
  readonly hasBlas: boolean;
}
