// Matrix products in machine code, block by block of tiles (tiles.ts), and what brings B into panels of 16 columns for them.
import { bytesPerNumber, type FrozenFormat, type FrozenMatrix, paddedToPanels } from '../frozen-matrix.ts';
import type { Heap } from '../wasm/heap.ts';
import { Scratch } from '../wasm/heap.ts';
import type { Product } from '../wasm/product.ts';
import {
  addNumber,
  address,
  addTo,
  at,
  type Code,
  countDown,
  load,
  loadMasked,
  move,
  procedure,
  r8,
  r9,
  r10,
  r12,
  r13,
  r14,
  rax,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  shiftLeft,
  store,
  subtractFrom,
  unlessZero,
} from './assembler.ts';
import { type Lanes, type MachineFunction, maskWords, type Placed, type Program } from './executable.ts';
import type { Helper } from './helper.ts';
import { aheadLines, lineBytes, panelColumns, placeProduct, tileSizes } from './tiles.ts';
import { placePackColumns } from './turning.ts';

/**
 * pack(b, out, rowB, k, panels, rest, …): panels [k, 16] of the columns of B [k, n], whose rows are `rowB` bytes apart; what the
 * last one lacks is 0.
 */
function placePackRows(program: Program): number {
  const [out, step, k, panels, rest] = [rsi, rdx, rcx, r8, r9];
  const [from, to, left, panelBytes, mask] = [rax, r12, r10, r13, program.words(rbx, maskWords)];
  const copy = (read: (part: number) => Code): Code =>
    [0, 1].flatMap((part) => [...read(part), ...store(at(to, 32 * part), part)]);
  return program.place(
    procedure(
      0,
      [...program.pool(rbx), ...address(rbx, at(rbx, mask.offset + 4 * panelColumns))],
      [...move(r14, rest), ...shiftLeft(r14, 2), ...subtractFrom(rbx, r14)],
      [0, 1].flatMap((part) => load(2 + part, at(rbx, 32 * part))),
      [...move(panelBytes, k), ...shiftLeft(panelBytes, 6)],
      countDown(
        k,
        1,
        [...move(from, rdi), ...move(to, out), ...move(left, panels)],
        countDown(
          left,
          1,
          copy((part) => load(part, at(from, 32 * part))),
          addNumber(from, 4 * panelColumns),
          addTo(to, panelBytes),
        ),
        unlessZero(
          rest,
          copy((part) => loadMasked(part, 2 + part, at(from, 32 * part))),
        ),
        [...addTo(rdi, step), ...addNumber(out, 4 * panelColumns)],
      ),
    ),
  );
}

/** Rows of C that are computed at most while a block of B of at most so much depth is at hand. */
const blockSizes: Readonly<Record<Lanes, Readonly<Record<'rows' | 'depth' | 'transposedDepth', number>>>> = {
  8: { rows: 96, depth: 256, transposedDepth: 128 },
  16: { rows: 96, depth: 256, transposedDepth: 128 },
};

/** `whole` in parts of about equal size, at most `most` and a multiple of `unit`: the size of all but the last. */
const partOf = (whole: number, most: number, unit: number): number =>
  Math.ceil(whole / Math.ceil(whole / most) / unit) * unit;

/** Rows of a tile below which it is slow: its sums are too few to hide how long each takes. */
const fewRows = 4;

/** How many tiles of most rows make up so many rows, and what the last two have. */
function splitRows(rows: number, most: number): [strips: number, tall: number, low: number] {
  const [strips, rest] = [Math.floor(rows / most), rows % most];
  if (strips === 0 || rest === 0 || rest >= fewRows) return [strips, rest, 0];
  return [strips - 1, Math.ceil((most + rest) / 2), Math.floor((most + rest) / 2)];
}

/** Numbers of B that are packed at a time. */
const maxPacked = 2 ** 20;

/** Multiplications of a product that is worth another thread: a tenth of a millisecond of them. */
const leastShared = 2 ** 23;

/** Bytes of a row of a panel. */
const panelBytes = 4 * panelColumns;

/** Numbers between the rows of a matrix that is read where it lies, at most: farther apart they fall on the same sets of the cache. */
const maxDirect = 64;

/** Matrices [k, n] in panels of 16 columns, which a product reads one after the other. */
export interface Packing {
  /** How many numbers a packed matrix has. */
  readonly size: (k: number, n: number) => number;
  /** Packs Bᵀ, stored at `b` as [n, k], to `out`. */
  readonly pack: (k: number, n: number, b: number, out: number) => void;
  /** C [m, n] (+)= A [m, k] · B, packed. */
  readonly product: (
    m: number,
    n: number,
    k: number,
    a: number,
    packed: number,
    c: number,
    adds: boolean,
  ) => void;
}

/** Products of what is on the heap with frozen matrices. */
export interface FrozenProducts {
  /** y [m, out] (+)= x [m, in] · Wᵀ */
  readonly forward: (m: number, w: FrozenMatrix, x: number, y: number, adds: boolean) => void;
  /** dx [m, in] (+)= dy [m, out] · W */
  readonly backward: (m: number, w: FrozenMatrix, dy: number, dx: number, adds: boolean) => void;
}

/** The functions of a product, placed in a program. */
export interface PlacedProducts {
  readonly lanes: Lanes;
  readonly product: Readonly<Record<FrozenFormat, Placed>>;
  readonly packRows: Placed;
  readonly packColumns: Readonly<Record<FrozenFormat, Placed>>;
}

/** `lanes`: of the vectors that tiles are made of, which the processor must have. */
export function placeProducts(program: Program, lanes: Lanes): PlacedProducts {
  const placed = (address: number, pointers: number, counts: number): Placed => ({
    address,
    pointers,
    parameters: Array<'int64_t'>(counts).fill('int64_t'),
    result: 'void',
  });
  const each = (place: (format: FrozenFormat) => Placed) => ({
    float32: place('float32'),
    bfloat16: place('bfloat16'),
  });
  return {
    lanes,
    product: each((format) => placed(placeProduct(program, lanes, format), 3, 17)),
    packRows: placed(placePackRows(program), 2, 5),
    packColumns: each((format) => placed(placePackColumns(program, format), 2, 5)),
  };
}

/** Products on the heap. Each row of a result is the same, to the bit, whatever rows stand beside it. */
export class MachineProducts implements Packing, FrozenProducts {
  readonly #heap: Heap;
  readonly #base: () => number;
  readonly #lanes: Lanes;
  readonly #placed: PlacedProducts;
  readonly #run: Readonly<Record<FrozenFormat, MachineFunction>>;
  readonly #packRows: MachineFunction;
  readonly #packColumns: Readonly<Record<FrozenFormat, MachineFunction>>;
  /** Where a product packs its B. */
  readonly #scratch: Scratch;
  readonly #startHelper: () => Helper | null;
  readonly #helpers: Helper[] = [];
  #mostHelpers = 0;
  #threadsOfLast = 1;
  /** For whom calls are noted down; null: they are made. */
  #helper: Helper | null = null;

  /** `base` is where the heap begins in the process, `startHelper` what gives another thread, or null where there is none. */
  constructor(
    program: Program,
    placed: PlacedProducts,
    heap: Heap,
    base: () => number,
    startHelper: () => Helper | null,
  ) {
    this.#heap = heap;
    this.#base = base;
    this.#placed = placed;
    this.#lanes = placed.lanes;
    this.#startHelper = startHelper;
    const each = ({ float32, bfloat16 }: Readonly<Record<FrozenFormat, Placed>>) => ({
      float32: program.callable(float32),
      bfloat16: program.callable(bfloat16),
    });
    this.#run = each(placed.product);
    this.#packRows = program.callable(placed.packRows);
    this.#packColumns = each(placed.packColumns);
    this.#scratch = new Scratch(heap);
  }

  readonly multiply: Product = (transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, adds) => {
    if (k === 0) {
      for (let i = 0; !adds && i < m; i++) this.#heap.floats(c + 4 * i * ldc, n).fill(0);
      return;
    }
    // Of a depth as long as a vocabulary only a part is packed at once: A would pass by again for every few columns.
    const block = blockSizes[this.#lanes];
    const deepest = Math.max(block.depth, Math.floor(maxPacked / this.size(1, n)));
    const depth = transposeA ? k : partOf(k, deepest, 8);
    const most = Math.max(1, Math.floor(maxPacked / depth / panelColumns)) * panelColumns;
    const isDirect = !transposeB && ldb <= maxDirect && n % panelColumns === 0;
    const packedDepth = isDirect ? 0 : transposeA ? partOf(k, block.transposedDepth, 8) : depth;
    // What is too narrow to be shared by columns is shared by rows, for each of which B is packed.
    const byRows = n < 2 * this.#tileColumns;
    const room = this.size(packedDepth, Math.min(most, n));
    const packed = this.#scratch.reserve(byRows ? room * (1 + this.#mostHelpers) : room);
    for (let l = 0; l < k; l += depth) {
      for (let j = 0; j < n; j += most) {
        const from = b + 4 * (transposeB ? j * ldb + l : l * ldb + j);
        const [columns, part] = [Math.min(most, n - j), Math.min(depth, k - l)];
        const [whole, unit] = byRows ? [m, tileSizes[this.#lanes].rows] : [columns, this.#tileColumns];
        this.#share(whole, unit, m * columns * part, (first, count, index) => {
          const [row, rows, column, width] = byRows ? [first, count, 0, columns] : [0, m, first, count];
          // biome-ignore format: as `Product` names them
          this.#part(
            transposeA, transposeB, rows, width, part,
            a + 4 * (l + row * (transposeA ? 1 : lda)), lda, from + 4 * column * (transposeB ? ldb : 1), ldb,
            c + 4 * (row * ldc + j + column), ldc, adds || l > 0,
            isDirect ? null : packed + 4 * (byRows ? index * room : this.size(packedDepth, column)),
          );
        });
      }
    }
  };

  /** A part of C whose share of B is packed at once, to `packed`; null: B is read where it lies. */
  #part(
    transposeA: boolean,
    transposeB: boolean,
    m: number,
    n: number,
    k: number,
    a: number,
    lda: number,
    b: number,
    ldb: number,
    c: number,
    ldc: number,
    adds: boolean,
    packed: number | null,
  ): void {
    const { rows: tileRows, panels } = tileSizes[this.#lanes];
    const block = blockSizes[this.#lanes];
    const depth = partOf(k, transposeA ? block.transposedDepth : block.depth, 8);
    const stepB = 4 * (transposeB ? 1 : ldb);
    const isDirect = packed === null;
    const [rowB, panelB] = isDirect ? [4 * ldb, panelBytes] : [panelBytes, 0];
    if (transposeA) {
      // Meanwhile the rows of A and B for the next depth are brought near.
      const [rows, columns] = [Math.ceil(m / tileRows), Math.ceil(n / panelColumns / panels)];
      const share = (bytes: number) =>
        Math.min(aheadLines * lineBytes, lineBytes * Math.ceil(bytes / (rows * columns * lineBytes)));
      for (let l = 0; l < k; l += depth) {
        const part = Math.min(depth, k - l);
        const next = Math.min(depth, k - l - part);
        if (!isDirect) this.#pack(transposeB, 4 * ldb, part, n, b + l * stepB, packed);
        // biome-ignore format: as #block names them
        this.#block(
          'float32', m, n, part, a + 4 * l * lda, 4, 4 * lda, isDirect ? b + l * stepB : packed, rowB, panelB || part * panelBytes,
          c, 4 * ldc, adds || l > 0,
          a + 4 * (l + depth) * lda, share(4 * lda * next), transposeB ? 0 : b + (l + depth) * stepB, transposeB ? 0 : share(next * stepB),
        );
      }
      return;
    }
    for (let l = 0; !isDirect && l < k; l += depth) {
      const part = Math.min(depth, k - l);
      this.#pack(transposeB, 4 * ldb, part, n, b + l * stepB, packed + 4 * this.size(l, n));
    }
    const rows = partOf(m, block.rows, tileRows);
    for (let i = 0; i < m; i += rows) {
      for (let l = 0; l < k; l += depth) {
        const part = Math.min(depth, k - l);
        const fromB = isDirect ? b + l * stepB : packed + 4 * this.size(l, n);
        const [fromA, ahead] = [a + 4 * (i * lda + l), a + 4 * ((i + rows) * lda + l)];
        // biome-ignore format: as #block names them
        this.#block(
          'float32', Math.min(rows, m - i), n, part, fromA, 4 * lda, 4, fromB, rowB, panelB || part * panelBytes,
          c + 4 * i * ldc, 4 * ldc, adds || l > 0, ahead, aheadLines * lineBytes, 0, 0,
        );
      }
    }
  }

  readonly size = (k: number, n: number): number => k * Math.ceil(n / panelColumns) * panelColumns;

  readonly pack = (k: number, n: number, b: number, out: number): void =>
    this.#pack(true, 4 * k, k, n, b, out);

  readonly product: Packing['product'] = (m, n, k, a, packed, c, adds) =>
    this.#share(n, this.#tileColumns, m * n * k, (first, count) => {
      const rows = partOf(m, blockSizes[this.#lanes].rows, tileSizes[this.#lanes].rows);
      for (let i = 0; i < m; i += rows) {
        const [fromA, ahead] = [a + 4 * i * k, a + 4 * (i + rows) * k];
        // biome-ignore format: as #block names them
        this.#block(
          'float32', Math.min(rows, m - i), count, k, fromA, 4 * k, 4, packed + 4 * first * k, panelBytes, k * panelBytes,
          c + 4 * (i * n + first), 4 * n, adds, ahead, aheadLines * lineBytes, 0, 0,
        );
      }
    });

  readonly forward: FrozenProducts['forward'] = (m, matrix, x, y, adds) => {
    const [n, k] = matrix.shape;
    this.#share(n, this.#tileColumns, m * n * k, (first, count) =>
      this.#forward(m, matrix, first, count, x, y, adds),
    );
  };

  /** So many columns of y from `first` on, which begins a panel. */
  #forward(
    m: number,
    { shape: [n, k], format, address }: FrozenMatrix,
    first: number,
    count: number,
    x: number,
    y: number,
    adds: boolean,
  ): void {
    const bytes = bytesPerNumber(format);
    const { rows: tileRows } = tileSizes[this.#lanes];
    const block = blockSizes[this.#lanes];
    const tall = m > block.rows;
    const [rows, depth] = tall ? [partOf(m, block.rows, tileRows), partOf(k, block.depth, 8)] : [m, k];
    const panelB = bytes * panelColumns * paddedToPanels(k);
    const columns = tall ? Math.max(1, Math.floor(maxPacked / k / panelColumns)) * panelColumns : n;
    for (let j = first; j < first + count; j += columns) {
      for (let i = 0; i < m; i += rows) {
        for (let l = 0; l < k; l += depth) {
          const part = Math.min(depth, k - l);
          const fromB = address + (j / panelColumns) * panelB + bytes * l * panelColumns - this.#base();
          const [fromA, ahead] = [x + 4 * (i * k + l), x + 4 * ((i + rows) * k + l)];
          // biome-ignore format: as #block names them
          this.#block(
            format, Math.min(rows, m - i), Math.min(columns, first + count - j), part, fromA, 4 * k, 4,
            fromB, bytes * panelColumns, panelB,
            y + 4 * (i * n + j), 4 * n, adds || l > 0, ahead, aheadLines * lineBytes, 0, 0,
          );
        }
      }
    }
  }

  readonly backward: FrozenProducts['backward'] = (m, { shape: [k, n], format, address }, dy, dx, adds) => {
    const rowB = bytesPerNumber(format) * panelColumns;
    const most = Math.max(1, Math.floor(maxPacked / n / panelColumns)) * panelColumns;
    const block = blockSizes[this.#lanes];
    const [rows, padded] = [partOf(m, block.rows, tileSizes[this.#lanes].rows), paddedToPanels(n)];
    const panels = padded / panelColumns;
    for (let l = 0; l < k; l += most) {
      // Panels of W hold 16 of its rows. Turned, they are 16 rows of each of the panels that hold 16 of its columns.
      const part = Math.min(most, k - l);
      const panelB = panelBytes * paddedToPanels(part);
      const turned = this.#scratch.reserve((panelB / 4) * panels);
      this.#share(n, this.#tileColumns, m * n * part, (first, count) => {
        const own = turned + panelB * (first / panelColumns);
        for (let row = 0; row < part; row += panelColumns) {
          const from = address + rowB * (((l + row) / panelColumns) * padded + first) - this.#base();
          // biome-ignore format: as #packPanels names them
          this.#packPanels(
            format, rowB, panelColumns, Math.ceil(count / panelColumns), 0, from, own + panelBytes * row, panelB,
          );
        }
        const depth = partOf(part, block.depth, 8);
        for (let i = 0; i < m; i += rows) {
          for (let o = 0; o < part; o += depth) {
            const [fromA, ahead] = [dy + 4 * (i * k + l + o), dy + 4 * ((i + rows) * k + l + o)];
            // biome-ignore format: as #block names them
            this.#block(
              'float32', Math.min(rows, m - i), count, Math.min(depth, part - o), fromA, 4 * k, 4,
              own + panelBytes * o, panelBytes, panelB,
              dx + 4 * (i * n + first), 4 * n, adds || l + o > 0, ahead, aheadLines * lineBytes, 0, 0,
            );
          }
        }
      });
    }
  };

  /** From here on products are shared among so many threads, this one among them, where they are large enough. */
  shareAmong(threads: number): void {
    this.#mostHelpers = threads - 1;
  }

  /** Threads that the last product, or its last part, was shared among. */
  get threadsOfLast(): number {
    return this.#threadsOfLast;
  }

  /** Columns of a tile. */
  get #tileColumns(): number {
    return tileSizes[this.#lanes].panels * panelColumns;
  }

  /**
   * Has `work` do each of some parts of 0 … `whole`, which begin at multiples of `unit`: see `#carryOut`. `multiplications`: in all
   * of it.
   */
  #share(
    whole: number,
    unit: number,
    multiplications: number,
    work: (first: number, count: number, index: number) => void,
  ): void {
    const threads = this.#threadsFor(multiplications, Math.floor(whole / unit));
    const size = Math.ceil(whole / threads / unit) * unit;
    const starts = Array.from({ length: Math.ceil(whole / size) || 1 }, (_, i) => i * size);
    this.#carryOut(starts, whole, work);
  }

  /**
   * Has rows done, of which each by itself costs `costOf` times so many multiplications, in parts of about equal cost. `callOf` gives
   * a function's address, the same to be called from here, and its arguments, for rows from one on; `room`, for other threads than
   * this one, is where on the heap they have so many numbers for each unit of a row's greatest cost.
   */
  readonly shareRows = (
    rows: number,
    costOf: (row: number) => number,
    multiplications: number,
    numbers: number,
    callOf: (
      first: number,
      count: number,
      room: number | null,
    ) => readonly [address: number, run: MachineFunction, args: readonly number[]],
  ): void => {
    let [whole, most] = [0, 0];
    for (let row = 0; row < rows; row++) {
      const cost = costOf(row);
      whole += cost;
      if (cost > most) most = cost;
    }
    const threads = this.#threadsFor(whole * multiplications, rows);
    const starts = [0];
    for (let row = 0, done = 0; starts.length < threads && row < rows; row++) {
      if (done >= (whole * starts.length) / threads) starts.push(row);
      done += costOf(row);
    }
    const room = threads === 1 ? 0 : this.#scratch.reserve((threads - 1) * numbers * most);
    this.#carryOut(starts, rows, (first, count, index) => {
      const [address, run, args] = callOf(
        first,
        count,
        index === 0 ? null : room + 4 * (index - 1) * numbers * most,
      );
      if (this.#helper === null) run(...args);
      else this.#helper.note(address, args);
    });
  };

  /** How many threads such work is worth, of so many parts at most; starts those that are not there yet. */
  #threadsFor(multiplications: number, parts: number): number {
    const most = multiplications < leastShared ? 0 : Math.max(0, Math.min(this.#mostHelpers, parts - 1));
    while (this.#helpers.length < most) {
      const helper = this.#startHelper();
      if (helper === null) this.#mostHelpers = this.#helpers.length;
      else this.#helpers.push(helper);
      if (helper === null) break;
    }
    return 1 + Math.min(most, this.#helpers.length);
  }

  /**
   * Has `work` do each of the parts of 0 … `whole` that begin at `starts`: the first here, the others meanwhile in other threads.
   * What it does are calls of machine code alone, of which no two parts write to the same place.
   */
  #carryOut(
    starts: readonly number[],
    whole: number,
    work: (first: number, count: number, index: number) => void,
  ): void {
    if (starts.length === 1) {
      this.#threadsOfLast = 1;
      work(0, whole, 0);
      return;
    }
    const helpers = this.#helpers.slice(0, starts.length - 1);
    const part = (index: number) => {
      const first = starts[index]!;
      work(first, (starts[index + 1] ?? whole) - first, index);
    };
    try {
      for (const [i, helper] of helpers.entries()) {
        this.#helper = helper;
        part(i + 1);
      }
    } catch (error) {
      // Else the next product would carry them out.
      for (const helper of helpers) helper.forget();
      throw error;
    } finally {
      this.#helper = null;
    }
    this.#threadsOfLast = starts.length;
    for (const helper of helpers) helper.begin();
    try {
      part(0);
    } finally {
      for (const helper of helpers) helper.join();
    }
  }

  /** Packs op(B) [k, n], stored in rows of `rowB` bytes at `from`. */
  #pack(transposed: boolean, rowB: number, k: number, n: number, from: number, to: number): void {
    const [panels, rest] = [Math.floor(n / panelColumns), n % panelColumns];
    this.#packPanels(transposed ? 'float32' : null, rowB, k, panels, rest, from, to, k * panelBytes);
  }

  /** As the placed function for B of a format takes it that is stored transposed; null: for one that is not. */
  #packPanels(
    transposed: FrozenFormat | null,
    rowB: number,
    k: number,
    panels: number,
    rest: number,
    from: number,
    to: number,
    panelB: number,
  ): void {
    const start = this.#base();
    if (this.#helper !== null) {
      const { address } = transposed === null ? this.#placed.packRows : this.#placed.packColumns[transposed];
      this.#helper.note(address, [start + from, start + to, rowB, k, panels, rest, panelB]);
      return;
    }
    const run = transposed === null ? this.#packRows : this.#packColumns[transposed];
    run(start + from, start + to, rowB, k, panels, rest, panelB);
  }

  /**
   * C (+)= A·B for one block, as the placed product takes it; meanwhile each tile brings near some lines from `aheadA` and
   * `aheadB` on, `stepA` and `stepB` bytes behind those of the tile before (0: none).
   */
  #block(
    format: FrozenFormat,
    m: number,
    n: number,
    k: number,
    a: number,
    stepI: number,
    stepK: number,
    b: number,
    rowB: number,
    panelB: number,
    c: number,
    rowC: number,
    adds: boolean,
    aheadA: number,
    stepA: number,
    aheadB: number,
    stepB: number,
  ): void {
    const start = this.#base();
    const { rows, panels } = tileSizes[this.#lanes];
    const [strips, tall, low] = splitRows(m, rows);
    const [columns, rest] = [Math.floor(n / (panels * panelColumns)), n % (panels * panelColumns)];
    const beside = rest > panelColumns;
    if (this.#helper !== null) {
      // biome-ignore format: as `placeProduct` names them
      this.#helper.note(this.#placed.product[format].address, [
        start + a, start + b, start + c, stepI, stepK, rowC, rowB, panelB, k,
        columns, beside ? 0 : rest, strips, tall, low, adds ? 1 : 0,
        start + aheadA, stepA, start + aheadB, stepB, beside ? rest - panelColumns : 0,
      ]);
      return;
    }
    // biome-ignore format: as `placeProduct` names them
    this.#run[format](
      start + a, start + b, start + c, stepI, stepK, rowC, rowB, panelB, k,
      columns, beside ? 0 : rest, strips, tall, low, adds ? 1 : 0,
      start + aheadA, stepA, start + aheadB, stepB, beside ? rest - panelColumns : 0,
    );
  }
}
