// Matrices that nobody assigns to, outside the engine's heap: in memory that all threads of the process share, in the order in
// which products in machine code read them, and as narrow as the file had them.

/** How the numbers of a frozen matrix are stored; either is widened to float32 exactly. */
export type FrozenFormat = 'float32' | 'bfloat16';

/** Rows of a panel. */
export const panelRows = 16;

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
