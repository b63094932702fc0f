// Matrix products on the wasm heap: through a BLAS where there is one, else through our own tiles.
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { Blas, Sgemm } from '../blas.ts';
import tf from '../tfjs.cjs';
import type { Heap } from './heap.ts';
import type { Tiles } from './tiles.ts';

const { broadcast_util, util } = tf;

/**
 * c [m, n] = op(a)·op(b), or c += with `adds`, for one pair of row-major matrices; as `Sgemm`, but with addresses on the
 * heap. op(a) is [m, k] and op(b) [k, n] after transposing; the rows of what is stored begin ld* numbers apart.
 */
export type Product = Sgemm;

/** Below so many rows a call into a BLAS takes two to three times as long as our tiles. */
const fewRows = 4;

/** Products through `cblas_sgemm`, in place, and `tiled` where that is faster. */
export function blasProduct(heap: Heap, blas: Blas, tiled: Product): Product {
  return (transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, adds) => {
    if (m < fewRows && transposeB && !transposeA) {
      return tiled(transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, adds);
    }
    const base = blas.addressOf(heap.buffer);
    blas.sgemm(transposeA, transposeB, m, n, k, base + a, lda, base + b, ldb, base + c, ldc, adds);
  };
}

/** Rows and inner length of the block of A that meets one column of tiles after the other, from the cache. */
const [blockRows, blockInner] = [64, 256];

/**
 * Products through our own tiles, near the speed that 128-bit vectors allow: 26 to 38 GFLOP/s for every shape of
 * a decoder, where TF.js' kernel has 26 for plain 2-D matrices and 1.8 for transposed or batched ones. Each row
 * of the result is the same whatever rows stand beside it.
 */
export function tiledProduct(heap: Heap, tiles: Tiles): Product {
  // Both add to what C holds.

  /** A·Bᵀ: both operands are read along their rows. */
  const inner: Product = (_transposeA, _transposeB, m, n, k, a, lda, b, ldb, c, ldc) => {
    const [rowA, rowB, rowC] = [4 * lda, 4 * ldb, 4 * ldc];
    for (let i = 0; i < m; i += blockRows) {
      const rows = Math.min(blockRows, m - i);
      const strips = rows >> 2;
      for (let j = 0; strips > 0 && j < n; j += 2) {
        const wide = j + 1 < n ? tiles.inner4x2 : tiles.inner4x1;
        wide(a + i * rowA, rowA, b + j * rowB, rowB, c + i * rowC + 4 * j, rowC, 4, k, strips);
      }
      // Of the few rows below, two at a time meet B in tiles that stand on their side: B is read once for both.
      for (let row = i + 4 * strips; row < i + rows; row += 2) {
        const pair = row + 1 < i + rows;
        const [tall, flat] = pair ? [tiles.inner4x2, tiles.inner1x2] : [tiles.inner4x1, tiles.inner1x1];
        const [atA, atC, below] = [a + row * rowA, c + row * rowC, n & ~3];
        tall(b, rowB, atA, rowA, atC, 4, rowC, k, n >> 2);
        flat(b + below * rowB, rowB, atA, rowA, atC + 4 * below, 4, rowC, k, n & 3);
      }
    }
  };

  /** A·B, Aᵀ·B and, a column at a time, Aᵀ·Bᵀ. */
  const outer: Product = (transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc) => {
    const [stepI, stepK] = transposeA ? [4, 4 * lda] : [4 * lda, 4];
    const [rowB, columnB] = transposeB ? [4, 4 * ldb] : [4 * ldb, 4];
    for (let l = 0; l < k; l += blockInner) {
      const depth = Math.min(blockInner, k - l);
      for (let i = 0; i < m; i += blockRows) {
        const rows = Math.min(blockRows, m - i);
        const strips = rows >> 2;
        const atA = a + i * stepI + l * stepK;
        for (let j = 0, columns: 8 | 4 | 1; j < n; j += columns) {
          columns = transposeB || n - j < 4 ? 1 : n - j < 8 ? 4 : 8;
          const [atB, atC] = [b + l * rowB + j * columnB, c + 4 * (i * ldc + j)];
          const [tall, flat] = [tiles[`outer4x${columns}`], tiles[`outer1x${columns}`]];
          tall(atA, stepI, stepK, atB, rowB, atC, 4 * ldc, depth, strips);
          const below = 4 * strips;
          flat(atA + below * stepI, stepI, stepK, atB, rowB, atC + 4 * below * ldc, 4 * ldc, depth, rows & 3);
        }
      }
    }
  };

  return (transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, adds) => {
    if (!adds && ldc === n) heap.floats(c, m * n).fill(0);
    else for (let i = 0; !adds && i < m; i++) heap.floats(c + 4 * i * ldc, n).fill(0);
    const product = transposeB && !transposeA ? inner : outer;
    product(transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, true);
  };
}

/** TF.js' `BatchMatMul`: a [..., m, k] and b [..., k, n], either stored transposed, batches broadcast. */
export function batchMatMul(
  heap: Heap,
  product: Product,
  a: TensorInfo,
  b: TensorInfo,
  transposeA: boolean,
  transposeB: boolean,
): TensorInfo {
  const [rowsA, columnsA] = a.shape.slice(-2) as [number, number];
  const [rowsB, columnsB] = b.shape.slice(-2) as [number, number];
  const [m, k] = transposeA ? [columnsA, rowsA] : [rowsA, columnsA];
  const [innerB, n] = transposeB ? [columnsB, rowsB] : [rowsB, columnsB];
  util.assert(k === innerB, () => `matMul: inner sizes ${k} and ${innerB} differ.`);
  const batchA = a.shape.slice(0, -2);
  const batchB = b.shape.slice(0, -2);
  const batch = broadcast_util.assertAndGetBroadcastShape(batchA, batchB);
  const out = heap.allocate([...batch, m, n]);
  const [as, bs, outs] = [heap.addressOf(a), heap.addressOf(b), heap.addressOf(out)];
  const count = util.sizeFromShape(batch);
  if (k === 0) heap.floats(outs, count * m * n).fill(0);
  if (count * m * n * k === 0) return out;
  if (!transposeA && util.sizeFromShape(batchB) === 1 && util.sizeFromShape(batchA) === count) {
    product(false, transposeB, count * m, n, k, as, columnsA, bs, columnsB, outs, n, false); // one tall matrix
    return out;
  }
  const indexA = broadcastIndex(batchA, batch);
  const indexB = broadcastIndex(batchB, batch);
  for (let i = 0; i < count; i++) {
    const [atA, atB] = [as + 4 * indexA(i) * m * k, bs + 4 * indexB(i) * k * n];
    product(transposeA, transposeB, m, n, k, atA, columnsA, atB, columnsB, outs + 4 * i * m * n, n, false);
  }
  return out;
}

/** Maps an index into the broadcast batch to one into the operand's own batch. */
function broadcastIndex(own: readonly number[], full: readonly number[]): (index: number) => number {
  const padded = [...Array<number>(full.length - own.length).fill(1), ...own];
  if (padded.every((size, axis) => size === full[axis])) return (index) => index;
  return (index) => {
    let result = 0;
    let stride = 1;
    for (let axis = full.length - 1; axis >= 0; axis--) {
      if (padded[axis] !== 1) result += (index % full[axis]!) * stride;
      index = Math.floor(index / full[axis]!);
      stride *= padded[axis]!;
    }
    return result;
  };
}
