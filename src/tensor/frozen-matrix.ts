// Matrices that nobody assigns to, outside the engine's heap: in memory that all threads of the process share, in the order in
// which products in machine code read them, and as narrow as the file had them.
import { createRequire } from 'node:module';
import { OptimaError } from '../domain/errors.ts';
import { adviseHugePages } from './wasm/huge-pages.ts';

/** How the numbers of a frozen matrix are stored; either is widened to float32 exactly. */
export type FrozenFormat = 'float32' | 'bfloat16';

/** Rows of a panel. */
const panelRows = 16;

/** Up to the next multiple of a panel's rows. */
export const paddedToPanels = (count: number): number => Math.ceil(count / panelRows) * panelRows;

/**
 * A matrix [out, in]: panels of 16 rows, [in, 16] each, where `out` and `in` are filled up with zeros to multiples of 16. Plain data:
 * another thread that gets it in a message has the same memory.
 */
export interface FrozenMatrix {
  readonly shape: readonly [out: number, inner: number];
  readonly format: FrozenFormat;
  /** Of bfloat16 the bits. */
  readonly numbers: Float32Array<SharedArrayBuffer> | Uint16Array<SharedArrayBuffer>;
  /** Where it lies in the process, in bytes. */
  readonly address: number;
}

export const bytesPerNumber = (format: FrozenFormat): number => (format === 'float32' ? 4 : 2);

/** Bytes of a frozen matrix. */
export const frozenBytes = ([out, inner]: readonly [number, number], format: FrozenFormat): number =>
  bytesPerNumber(format) * paddedToPanels(out) * paddedToPanels(inner);

export const isFrozen = (matrix: object): matrix is FrozenMatrix => 'format' in matrix;

/** Rows and columns of a panel that are turned at a time: what they touch stays in the nearest cache. */
const stretch = 64;

function allocateShared(shape: readonly number[], bytes: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(bytes);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const gib = (bytes / 2 ** 30).toFixed(1);
    throw new OptimaError(
      'model.failed',
      `There is no memory for a frozen matrix [${shape.join(', ')}] of ${gib} GiB.`,
      { cause, hint: 'Take a smaller model, or fewer models and programs at once.' },
    );
  }
}

/** A matrix whose numbers come in pieces, row by row. What a narrow format does not hold of them is cut off. */
export class GrowingMatrix {
  readonly matrix: FrozenMatrix;
  /** The rows of the next panel, and how many numbers of them are there. */
  readonly #rows: Float32Array;
  #filled = 0;
  #panel = 0;

  /** Throws `model.failed` when there is no memory for it. */
  constructor(shape: readonly [number, number], format: FrozenFormat) {
    const memory = allocateShared(shape, frozenBytes(shape, format));
    const numbers = format === 'float32' ? new Float32Array(memory) : new Uint16Array(memory);
    const koffi: typeof import('koffi').default = createRequire(import.meta.url)('koffi');
    this.matrix = { shape, format, numbers, address: Number(koffi.address(numbers)) };
    adviseHugePages(numbers, memory.byteLength);
    this.#rows = new Float32Array(panelRows * shape[1]);
  }

  /** Adds a piece, behind those before; the array may be used again. */
  add(piece: Float32Array): void {
    for (let at = 0; at < piece.length; ) {
      const taken = Math.min(piece.length - at, this.#rows.length - this.#filled);
      this.#rows.set(piece.subarray(at, at + taken), this.#filled);
      [at, this.#filled] = [at + taken, this.#filled + taken];
      if (this.#filled === this.#rows.length) this.#turn();
    }
  }

  /** As for what grows on the heap. There is nothing to free: the memory goes when nobody refers to it. */
  dispose(): void {}

  /** The matrix, once all its numbers are there. */
  finish(): FrozenMatrix {
    if (this.#filled > 0) {
      this.#rows.fill(0, this.#filled);
      this.#turn();
    }
    return this.matrix;
  }

  #turn(): void {
    const { numbers, shape, format } = this.matrix;
    const [, inner] = shape;
    const bits = new Uint32Array(this.#rows.buffer);
    const size = panelRows * paddedToPanels(inner);
    const out =
      format === 'float32'
        ? new Uint32Array(numbers.buffer, 4 * size * this.#panel, size)
        : new Uint16Array(numbers.buffer, 2 * size * this.#panel, size);
    const shift = format === 'float32' ? 0 : 16;
    for (let from = 0; from < inner; from += stretch) {
      const to = Math.min(inner, from + stretch);
      for (let row = 0; row < panelRows; row++) {
        for (let k = from; k < to; k++) out[k * panelRows + row] = bits[row * inner + k]! >>> shift;
      }
    }
    this.#panel++;
    this.#filled = 0;
  }
}

/** Writes a row of a frozen matrix to `out` [in]. */
export function readRow({ numbers, shape, format }: FrozenMatrix, row: number, out: Float32Array): void {
  const [, inner] = shape;
  const start = (row - (row % panelRows)) * paddedToPanels(inner) + (row % panelRows);
  if (format === 'float32') {
    for (let k = 0; k < inner; k++) out[k] = numbers[start + k * panelRows]!;
    return;
  }
  const bits = new Uint32Array(out.buffer, out.byteOffset, inner);
  for (let k = 0; k < inner; k++) bits[k] = numbers[start + k * panelRows]! << 16;
}

/** All rows of a frozen matrix, one after the other. */
export function readRows(matrix: FrozenMatrix): Float32Array {
  const [out, inner] = matrix.shape;
  const rows = new Float32Array(out * inner);
  for (let row = 0; row < out; row++) readRow(matrix, row, rows.subarray(row * inner, (row + 1) * inner));
  return rows;
}
