// Matrix products in machine code: a tile of C of up to 6 rows and 16 columns stays in registers while A and B pass by,
// B in panels of 16 columns. After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008);
// A is read where it lies.

import { bytesPerNumber, type FrozenFormat, type FrozenMatrix } from '../frozen.ts';
import type { Heap } from '../wasm/heap.ts';
import { Scratch } from '../wasm/heap.ts';
import type { Product } from '../wasm/product.ts';
import {
  addNumber,
  address,
  addTo,
  at,
  broadcast,
  type Code,
  call,
  callAt,
  clear,
  countDown,
  giveBack,
  indexed,
  interleaveHigh,
  interleaveLow,
  joinHalves,
  keep,
  load,
  loadMasked,
  loadNumber,
  loadWords,
  type Memory,
  move,
  moveNumber,
  multiplyAdd,
  prefetch,
  prefetchToWrite,
  procedure,
  type Register,
  r8,
  r9,
  r10,
  r11,
  r12,
  r13,
  r14,
  r15,
  range,
  rax,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  shiftLanes,
  shiftLeft,
  shuffle,
  slot,
  stackArgument,
  store,
  storeMasked,
  storeNumber,
  subtractFrom,
  unlessZero,
} from './assembler.ts';
import { type MachineFunction, maskWords, type Placed, type Program } from './executable.ts';

/** Rows of a tile at most, and its columns: 12 of the 16 registers hold it. */
const [tileRows, panelColumns] = [6, 16];

/** How the numbers of a packed B are stored, and how eight of them come into a register as float32. */
const formats = {
  float32: { bytes: 4, load: (to: Register, from: Memory): Code => load(to, from) },
  // A bfloat16 is the upper half of a float32.
  bfloat16: {
    bytes: 2,
    load: (to: Register, from: Memory): Code => [...loadWords(to, from), ...shiftLanes(to, to, 16)],
  },
} as const satisfies Record<FrozenFormat, unknown>;

/** register += step · n, for n up to 6 */
const advance = (register: Register, step: Register, n: number): Code => {
  const by = (scale: 1 | 2 | 4): Code => address(register, indexed(register, step, scale));
  return [...(n & 4 ? by(4) : []), ...(n & 2 ? by(2) : []), ...(n & 1 ? by(1) : [])];
};

// Where the product and its tiles keep things. rax, rbx, r10, r12 and r14 are free for all.
const [a, b, c, stepI, stepK, rowC] = [rdi, rsi, rdx, rcx, r8, r9];
const [rowB, tileC, depth] = [r11, r13, r15];
const [firstOfStack, panelB, inner] = [stackArgument(0), stackArgument(1), stackArgument(2)];
const [panels, rest] = [stackArgument(3), stackArgument(4)];
const [strips, tall, low, adds] = [stackArgument(5), stackArgument(6), stackArgument(7), stackArgument(8)];
const [aheadA, aheadB] = [
  { start: stackArgument(9), step: stackArgument(10), now: slot(4) },
  { start: stackArgument(11), step: stackArgument(12), now: slot(5) },
];
const [startA, mask, counter, stripCounter] = [slot(0), slot(1), slot(2), slot(3)];
/** Bytes of a cache line, and how many of them each tile brings near that the next block will need. */
const [lineBytes, aheadLines] = [64, 6];

/**
 * C (+)= A·B for one tile at `a` and `tileC`, which move on behind it. A(i, k) lies i · stepI + k · stepK bytes behind a, row
 * k of the panel k · rowB behind b. A masked tile writes the columns that `mask` points to.
 */
function tile(rows: number, masked: boolean, format: FrozenFormat): Code {
  const { bytes, load: loadB } = formats[format];
  const [upperA, lowerA, upperC, lowerC, atB, left] = [rax, rbx, tileC, r14, r12, r10];
  const row = (upper: Register, lower: Register, step: Register, i: number, offset = 0): Memory =>
    i % 3 === 0
      ? at(i < 3 ? upper : lower, offset)
      : indexed(i < 3 ? upper : lower, step, i % 3 === 1 ? 1 : 2, offset);
  const sum = (i: number, part: number) => 2 * i + part;
  const [partsOfB, numbers, masks] = [[12, 13] as const, [14, 15] as const, [14, 15] as const];
  const each = (body: (register: Register, place: Memory, part: 0 | 1) => Code): Code =>
    range(rows).flatMap((i) =>
      ([0, 1] as const).flatMap((part) => body(sum(i, part), row(upperC, lowerC, rowC, i, 32 * part), part)),
    );
  const turn: Code = [
    ...partsOfB.flatMap((register, part) => loadB(register, at(atB, 8 * bytes * part))),
    ...addTo(atB, rowB),
    ...range(rows).flatMap((i) => [
      ...broadcast(numbers[i & 1]!, row(upperA, lowerA, stepI, i)),
      ...multiplyAdd(sum(i, 0), numbers[i & 1]!, partsOfB[0]),
      ...multiplyAdd(sum(i, 1), numbers[i & 1]!, partsOfB[1]),
    ]),
    ...addTo(upperA, stepK),
    ...(rows > 3 ? addTo(lowerA, stepK) : []),
  ];
  const masksReady = masked
    ? [...move(left, mask), ...load(masks[0], at(left)), ...load(masks[1], at(left, 32))]
    : [];
  return [
    ...move(upperA, a),
    ...(rows > 3 ? [...move(lowerA, a), ...advance(lowerA, stepI, 3)] : []),
    ...(rows > 3 ? [...move(lowerC, tileC), ...advance(lowerC, rowC, 3)] : []),
    ...move(atB, b),
    ...move(left, tileC),
    ...advance(left, rowC, rows),
    ...range(rows).flatMap((i) => [
      ...prefetchToWrite(at(left)),
      ...prefetchToWrite(at(left, lineBytes - 4)),
      ...(i < rows - 1 ? addTo(left, rowC) : []),
    ]),
    ...[aheadA, aheadB].flatMap(({ now, step }) => [
      ...move(left, step),
      ...unlessZero(left, [
        ...addTo(left, now),
        ...range(aheadLines).flatMap((i) => prefetch(at(left, lineBytes * i))),
        ...keep(now, left),
      ]),
    ]),
    ...masksReady,
    ...move(left, adds),
    ...unlessZero(
      left,
      each((register, place, part) =>
        masked ? loadMasked(register, masks[part], place) : load(register, place),
      ),
      each(clear),
    ),
    ...move(left, depth),
    ...countDown(left, 4, ...range(4).map(() => turn)),
    ...countDown(left, 1, turn),
    ...masksReady,
    ...each((register, place, part) =>
      masked ? storeMasked(place, masks[part], register) : store(place, register),
    ),
    ...advance(a, stepI, rows),
    ...advance(tileC, rowC, rows),
    ...giveBack,
  ];
}

/**
 * product(a, b, c, stepI, stepK, rowC, rowB, panelB, k, panels, rest, strips, tall, low, adds, aheadA, stepA, aheadB,
 * stepB): C (+)= A·B, of which B is stored as `format` says, for `strips` tiles of 6 rows and two of `tall` and `low` rows (0: none), times `panels` of 16
 * columns, `panelB` bytes apart, and one of `rest` columns. Each tile brings near some lines from aheadA and aheadB on,
 * which move by stepA and stepB bytes (0: nothing). Returns its address.
 */
function placeProduct(program: Program, format: FrozenFormat): number {
  const [full, masked] = [false, true].map((edge) =>
    range(tileRows).map((i) => program.place(tile(i + 1, edge, format))),
  );
  const table = (tiles: readonly number[]) =>
    program.words(
      rbx,
      Int32Array.from([0, ...tiles].flatMap((place) => [(place % 2 ** 32) | 0, place / 2 ** 32])),
    );
  const panel = (tiles: readonly number[]): Code => {
    const callTile = (rows: Memory): Code => [
      ...move(rax, rows),
      ...unlessZero(rax, [...program.pool(rbx), ...callAt(indexed(rbx, rax, 8, table(tiles).offset))]),
    ];
    return [
      ...move(a, startA),
      ...move(tileC, c),
      ...move(r10, strips),
      ...countDown(r10, 1, keep(stripCounter, r10), call(tiles.at(-1)!), move(r10, stripCounter)),
      ...callTile(tall),
      ...callTile(low),
      ...addTo(b, panelB),
      ...addNumber(c, 4 * panelColumns),
    ];
  };
  const masks = program.words(rax, maskWords);
  return program.place(
    procedure(
      6,
      [aheadA, aheadB].flatMap(({ start, now }) => [...move(rax, start), ...keep(now, rax)]),
      [...keep(startA, a), ...move(rowB, firstOfStack), ...move(depth, inner)],
      move(r10, panels),
      countDown(r10, 1, keep(counter, r10), panel(full!), move(r10, counter)),
      move(r10, rest),
      unlessZero(r10, [
        ...program.pool(rax),
        ...address(rax, at(rax, masks.offset + 4 * panelColumns)),
        ...shiftLeft(r10, 2),
        ...subtractFrom(rax, r10),
        ...keep(mask, rax),
        ...panel(masked!),
      ]),
    ),
  );
}

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

/**
 * pack(b, out, rowB, k, panels, rest, panel): as `placePackRows`, of B stored transposed [n, k] with rows `rowB` bytes apart: squares of
 * 8 by 8 are turned in registers. Panels begin `panel` bytes apart. Where B is no float32 there may be no `rest`, and k is a
 * multiple of 8.
 */
function placePackColumns(program: Program, format: FrozenFormat): number {
  const { bytes, load: loadB } = formats[format];
  const [out, step, k, panels, rest] = [rsi, rdx, rcx, r8, r9];
  const [from, left, to, thrice, lower] = [rax, r10, r12, r13, rbx];
  /** Register i of 8 = column i of the square at `from`. */
  const square: Code = [
    ...move(lower, from),
    ...advance(lower, step, 4),
    ...range(8).flatMap((i) => {
      const base = i < 4 ? from : lower;
      return loadB(
        i,
        i % 4 === 0
          ? at(base)
          : i % 4 === 3
            ? indexed(base, thrice)
            : indexed(base, step, i % 4 === 1 ? 1 : 2),
      );
    }),
    ...range(4).flatMap((i) => [
      ...interleaveLow(8 + 2 * i, 2 * i, 2 * i + 1),
      ...interleaveHigh(9 + 2 * i, 2 * i, 2 * i + 1),
    ]),
    ...[0, 4].flatMap((i) => [
      ...shuffle(i, 8 + i, 10 + i, 0x44),
      ...shuffle(i + 1, 8 + i, 10 + i, 0xee),
      ...shuffle(i + 2, 9 + i, 11 + i, 0x44),
      ...shuffle(i + 3, 9 + i, 11 + i, 0xee),
    ]),
    ...range(4).flatMap((i) => [...joinHalves(8 + i, i, 4 + i, 0x20), ...joinHalves(12 + i, i, 4 + i, 0x31)]),
  ];
  /** A number of each of `rows` rows, the rows counted in r14. */
  const column = (rows: Code): Code => [
    ...move(lower, from),
    ...rows,
    ...move(r11, to),
    ...countDown(
      r14,
      1,
      loadNumber(0, at(lower)),
      storeNumber(at(r11), 0),
      addTo(lower, step),
      addNumber(r11, 4),
    ),
    ...addNumber(from, 4),
    ...addNumber(to, 4 * panelColumns),
  ];
  return program.place(
    procedure(
      0,
      [...move(thrice, step), ...advance(thrice, step, 2)],
      countDown(
        panels,
        1,
        // The upper eight rows, then the lower: each fills its half of the panel's rows.
        ...[0, 1].map((part) => [
          ...move(from, rdi),
          ...move(to, out),
          ...(part === 0 ? [] : [...advance(from, step, 4), ...advance(from, step, 4), ...addNumber(to, 32)]),
          ...move(left, k),
          ...countDown(
            left,
            8,
            square,
            range(8).flatMap((i) => store(at(to, 4 * panelColumns * i), 8 + i)),
            addNumber(from, 8 * bytes),
            addNumber(to, 32 * panelColumns),
          ),
          ...countDown(left, 1, column(moveNumber(r14, 8))),
        ]),
        range(4).flatMap(() => advance(rdi, step, 4)),
        addTo(out, firstOfStack),
      ),
      unlessZero(rest, [
        ...clear(1),
        ...move(left, k),
        ...move(to, out),
        ...countDown(left, 1, store(at(to), 1), store(at(to, 32), 1), addNumber(to, 4 * panelColumns)),
        ...move(left, k),
        ...move(from, rdi),
        ...move(to, out),
        ...countDown(left, 1, column(move(r14, rest))),
      ]),
    ),
  );
}

/** Rows of C that are computed at most while a block of B of at most so much depth is at hand. */
const [blockRows, blockDepth, transposedDepth] = [96, 256, 128];

/** `whole` in parts of about equal size, at most `most` and a multiple of `unit`: the size of all but the last. */
const partOf = (whole: number, most: number, unit: number): number =>
  Math.ceil(whole / Math.ceil(whole / most) / unit) * unit;

/** How many tiles of 6 rows make up so many rows, and what the last two have: of 1 or 2 rows alone they would be slow. */
function splitRows(rows: number): [strips: number, tall: number, low: number] {
  const [strips, rest] = [Math.floor(rows / tileRows), rows % tileRows];
  if (strips > 0 && rest === 1) return [strips - 1, 4, 3];
  if (strips > 0 && rest === 2) return [strips - 1, 4, 4];
  return [strips, rest, 0];
}

/** Numbers of B that are packed at a time. */
const maxPacked = 2 ** 20;

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
  /** C [m, n] = A [m, k] · B, packed. */
  readonly product: (m: number, n: number, k: number, a: number, packed: number, c: number) => void;
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
  readonly product: Readonly<Record<FrozenFormat, Placed>>;
  readonly packRows: Placed;
  readonly packColumns: Readonly<Record<FrozenFormat, Placed>>;
}

export function placeProducts(program: Program): PlacedProducts {
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
    product: each((format) => placed(placeProduct(program, format), 3, 16)),
    packRows: placed(placePackRows(program), 2, 5),
    packColumns: each((format) => placed(placePackColumns(program, format), 2, 5)),
  };
}

/** Products on the heap. Each row of a result is the same, to the bit, whatever rows stand beside it. */
export class MachineProducts implements Packing, FrozenProducts {
  readonly #heap: Heap;
  readonly #base: () => number;
  readonly #run: Readonly<Record<FrozenFormat, MachineFunction>>;
  readonly #packRows: MachineFunction;
  readonly #packColumns: Readonly<Record<FrozenFormat, MachineFunction>>;
  /** Where a product packs its B. */
  readonly #scratch: Scratch;

  /** `base` is where the heap begins in the process. */
  constructor(program: Program, placed: PlacedProducts, heap: Heap, base: () => number) {
    this.#heap = heap;
    this.#base = base;
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
    const most = Math.max(1, Math.floor(maxPacked / k / panelColumns)) * panelColumns;
    for (let j = 0; j < n; j += most) {
      const from = b + 4 * j * (transposeB ? ldb : 1);
      const columns = Math.min(most, n - j);
      this.#columns(transposeA, transposeB, m, columns, k, a, lda, from, ldb, c + 4 * j, ldc, adds);
    }
  };

  /** So many columns of C that their share of B is packed at once. */
  readonly #columns: Product = (transposeA, transposeB, m, n, k, a, lda, b, ldb, c, ldc, adds) => {
    const depth = partOf(k, transposeA ? transposedDepth : blockDepth, 8);
    const stepB = 4 * (transposeB ? 1 : ldb);
    const isDirect = !transposeB && ldb <= maxDirect && n % panelColumns === 0;
    const packed = isDirect ? 0 : this.#scratch.reserve(this.size(transposeA ? depth : k, n));
    const [rowB, panelB] = isDirect ? [4 * ldb, panelBytes] : [panelBytes, 0];
    if (transposeA) {
      // Meanwhile the rows of A and B for the next depth are brought near.
      const [rows, columns] = [Math.ceil(m / tileRows), Math.ceil(n / panelColumns)];
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
    const rows = partOf(m, blockRows, tileRows);
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
  };

  readonly size = (k: number, n: number): number => k * Math.ceil(n / panelColumns) * panelColumns;

  readonly pack = (k: number, n: number, b: number, out: number): void =>
    this.#pack(true, 4 * k, k, n, b, out);

  readonly product = (m: number, n: number, k: number, a: number, packed: number, c: number): void => {
    const rows = partOf(m, blockRows, tileRows);
    for (let i = 0; i < m; i += rows) {
      const [fromA, ahead] = [a + 4 * i * k, a + 4 * (i + rows) * k];
      // biome-ignore format: as #block names them
      this.#block(
        'float32', Math.min(rows, m - i), n, k, fromA, 4 * k, 4, packed, panelBytes, k * panelBytes,
        c + 4 * i * n, 4 * n, false, ahead, aheadLines * lineBytes, 0, 0,
      );
    }
  };

  readonly forward: FrozenProducts['forward'] = (m, { shape: [n, k], format, address }, x, y, adds) => {
    const bytes = bytesPerNumber(format);
    const tall = m > blockRows;
    const [rows, depth] = tall ? [partOf(m, blockRows, tileRows), partOf(k, blockDepth, 8)] : [m, k];
    const columns = tall ? Math.max(1, Math.floor(maxPacked / k / panelColumns)) * panelColumns : n;
    for (let j = 0; j < n; j += columns) {
      for (let i = 0; i < m; i += rows) {
        for (let l = 0; l < k; l += depth) {
          const part = Math.min(depth, k - l);
          const fromB = address + bytes * (j * k + l * panelColumns) - this.#base();
          const [fromA, ahead] = [x + 4 * (i * k + l), x + 4 * ((i + rows) * k + l)];
          // biome-ignore format: as #block names them
          this.#block(
            format, Math.min(rows, m - i), Math.min(columns, n - j), part, fromA, 4 * k, 4,
            fromB, bytes * panelColumns, bytes * panelColumns * k,
            y + 4 * (i * n + j), 4 * n, adds || l > 0, ahead, aheadLines * lineBytes, 0, 0,
          );
        }
      }
    }
  };

  readonly backward: FrozenProducts['backward'] = (m, { shape: [k, n], format, address }, dy, dx, adds) => {
    const bytes = bytesPerNumber(format);
    const most = Math.max(1, Math.floor(maxPacked / n / panelColumns)) * panelColumns;
    const [rows, panels] = [partOf(m, blockRows, tileRows), n / panelColumns];
    for (let l = 0; l < k; l += most) {
      // Panels of W hold 16 of its rows. Turned, they are 16 rows of each of the panels that hold 16 of its columns.
      const part = Math.min(most, k - l);
      const panelB = panelBytes * Math.ceil(part / panelColumns) * panelColumns;
      const turned = this.#scratch.reserve((panelB / 4) * panels);
      const start = this.#base();
      for (let row = 0; row < part; row += panelColumns) {
        const [from, to] = [address + bytes * (l + row) * n, start + turned + panelBytes * row];
        this.#packColumns[format](from, to, bytes * panelColumns, panelColumns, panels, 0, panelB);
      }
      const depth = partOf(part, blockDepth, 8);
      for (let i = 0; i < m; i += rows) {
        for (let o = 0; o < part; o += depth) {
          const [fromA, ahead] = [dy + 4 * (i * k + l + o), dy + 4 * ((i + rows) * k + l + o)];
          // biome-ignore format: as #block names them
          this.#block(
            'float32', Math.min(rows, m - i), n, Math.min(depth, part - o), fromA, 4 * k, 4,
            turned + panelBytes * o, panelBytes, panelB,
            dx + 4 * i * n, 4 * n, adds || l + o > 0, ahead, aheadLines * lineBytes, 0, 0,
          );
        }
      }
    }
  };

  /** Packs op(B) [k, n], stored in rows of `rowB` bytes at `from`. */
  #pack(transposed: boolean, rowB: number, k: number, n: number, from: number, to: number): void {
    const start = this.#base();
    const run = transposed ? this.#packColumns.float32 : this.#packRows;
    const [panels, rest] = [Math.floor(n / panelColumns), n % panelColumns];
    run(start + from, start + to, rowB, k, panels, rest, k * panelBytes);
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
    const [strips, tall, low] = splitRows(m);
    // biome-ignore format: as `placeProduct` names them
    this.#run[format](
      start + a, start + b, start + c, stepI, stepK, rowC, rowB, panelB, k,
      Math.floor(n / panelColumns), n % panelColumns, strips, tall, low, adds ? 1 : 0,
      start + aheadA, stepA, start + aheadB, stepB,
    );
  }
}
