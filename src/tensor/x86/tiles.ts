// The tiles of a matrix product in machine code: a part of C stays in registers while A, where it lies, and B, in panels of 16
// columns, pass by. After Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).
import type { FrozenFormat } from '../frozen-matrix.ts';
import {
  addNumber,
  address,
  addTo,
  at,
  broadcast,
  broadcast16,
  type Code,
  call,
  callAt,
  clear,
  clear16,
  countDown,
  giveBack,
  indexed,
  keep,
  load,
  load16,
  loadMasked,
  loadMasked16,
  loadWords,
  loadWords16,
  type Memory,
  move,
  multiplyAdd,
  multiplyAdd16,
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
  setMask,
  shiftLanes,
  shiftLanes16,
  shiftLeft,
  slot,
  stackArgument,
  store,
  store16,
  storeMasked,
  storeMasked16,
  subtractFrom,
  unlessZero,
} from './assembler.ts';
import { type Lanes, maskWords, type Program } from './executable.ts';

export const panelColumns = 16;

/** How many rows a tile has at most, and how many panels of B it reads side by side. */
export const tileSizes = {
  // 12 of the 16 registers hold C.
  8: { rows: 6, panels: 1 },
  // 24 of the 32.
  16: { rows: 12, panels: 2 },
} as const satisfies Record<Lanes, unknown>;

/** register += step · n, for n up to 15 */
export const advance = (register: Register, step: Register, n: number): Code =>
  ([8, 4, 2, 1] as const).flatMap((by) => (n & by ? address(register, indexed(register, step, by)) : []));

// Where the product and its tiles keep things. rax, rbx, rdx, r10, r12 and r14 are free for all.
const [a, b, stepI, stepK, rowC, rowB, tileC, panelB] = [rdi, rsi, rcx, r8, r9, r11, r13, r15];
const [firstOfStack, secondOfStack, depth] = [stackArgument(0), stackArgument(1), stackArgument(2)];
const [columns, rest] = [stackArgument(3), stackArgument(4)];
const [strips, tall, low, adds] = [stackArgument(5), stackArgument(6), stackArgument(7), stackArgument(8)];
const [aheadA, aheadB] = [
  { start: stackArgument(9), step: stackArgument(10), now: slot(4) },
  { start: stackArgument(11), step: stackArgument(12), now: slot(5) },
];
const restBeside = stackArgument(13);
const [startA, mask, counter, stripCounter, c] = [slot(0), slot(1), slot(2), slot(3), slot(6)];
const slots = 7;
/** Bytes of a cache line, and how many of them each tile brings near that the next block will need. */
export const [lineBytes, aheadLines] = [64, 6];

/** A vector of one of a tile's rows: in which of its panels, and where in the panel's row. */
interface Part {
  readonly panel: number;
  readonly column: number;
}

/** What a tile does with vectors. */
interface Kind {
  readonly partsOf: (panels: number) => readonly Part[];
  /** Registers of a row of B, of a number of A, and of the masks where a register holds them. */
  readonly registers: Readonly<Record<'b' | 'numbers' | 'masks', readonly Register[]>>;
  readonly broadcast: typeof broadcast;
  readonly multiplyAdd: typeof multiplyAdd;
  readonly clear: typeof clear;
  /** A vector of B as float32. */
  readonly loadB: Readonly<Record<FrozenFormat, (to: Register, from: Memory) => Code>>;
  /** Of C; the masked are those of the last panel. */
  readonly load: (to: Register, from: Memory, mask?: Register) => Code;
  readonly store: (to: Memory, from: Register, mask?: Register) => Code;
  /** Loads what `mask` names into `registers.masks`. */
  readonly masksReady: Code;
  /** Makes of so many columns in r10 what `masksReady` loads. */
  readonly makeMask: (program: Program) => Code;
}

const kinds: Readonly<Record<Lanes, Kind>> = {
  8: {
    partsOf: () => [0, 8].map((column) => ({ panel: 0, column })),
    registers: { b: [12, 13], numbers: [14, 15], masks: [14, 15] },
    broadcast,
    multiplyAdd,
    clear,
    loadB: {
      float32: load,
      // A bfloat16 is the upper half of a float32.
      bfloat16: (to, from) => [...loadWords(to, from), ...shiftLanes(to, to, 16)],
    },
    load: (to, from, mask) => (mask === undefined ? load(to, from) : loadMasked(to, mask, from)),
    store: (to, from, mask) => (mask === undefined ? store(to, from) : storeMasked(to, mask, from)),
    masksReady: [...move(r10, mask), ...load(14, at(r10)), ...load(15, at(r10, 32))],
    makeMask: (program) => [
      ...program.pool(rax),
      ...address(rax, at(rax, program.words(rax, maskWords).offset + 4 * panelColumns)),
      ...shiftLeft(r10, 2),
      ...subtractFrom(rax, r10),
      ...keep(mask, rax),
    ],
  },
  16: {
    partsOf: (panels) => range(panels).map((panel) => ({ panel, column: 0 })),
    registers: { b: [24, 25], numbers: [26, 27, 28, 29], masks: [1, 1] },
    broadcast: broadcast16,
    multiplyAdd: multiplyAdd16,
    clear: clear16,
    loadB: {
      float32: load16,
      bfloat16: (to, from) => [...loadWords16(to, from), ...shiftLanes16(to, to, 16)],
    },
    load: (to, from, mask) => (mask === undefined ? load16(to, from) : loadMasked16(to, mask, from)),
    store: (to, from, mask) => (mask === undefined ? store16(to, from) : storeMasked16(to, mask, from)),
    // The mask register stays as it is set.
    masksReady: [],
    makeMask: (program) => [
      ...program.pool(rax),
      ...setMask(
        1,
        indexed(
          rax,
          r10,
          4,
          program.words(
            rax,
            Int32Array.from({ length: panelColumns + 1 }, (_, n) => 2 ** n - 1),
          ).offset,
        ),
      ),
    ],
  },
};

/** Rows of A that one register leads to. */
const rowsOfPointer = 3;

/**
 * C (+)= A·B for one tile of one or more panels at `a` and `tileC`, which move on behind it. A(i, k) lies i · stepI + k · stepK
 * bytes behind a, row k of the panel k · rowB behind b. Of a masked tile's last panel only what the mask says is written.
 */
function tile(kind: Kind, rows: number, panels: number, masked: boolean, format: FrozenFormat): Code {
  const bytesOfB = format === 'float32' ? 4 : 2;
  const [parts, { b: partsOfB, numbers, masks }] = [kind.partsOf(panels), kind.registers];
  const pointers = [rax, rbx, r14, rdx].slice(0, Math.ceil(rows / rowsOfPointer));
  const [atB, left] = [r12, r10];
  const sum = (i: number, part: number) => parts.length * i + part;
  const rowOfA = (i: number): Memory => {
    const [pointer, offset] = [pointers[Math.floor(i / rowsOfPointer)]!, i % rowsOfPointer];
    return offset === 0 ? at(pointer) : indexed(pointer, stepI, offset === 1 ? 1 : 2);
  };
  /** Each vector of C, row by row; `row` moves along. */
  const each = (row: Register, body: (sum: Register, place: Memory, mask?: Register) => Code): Code =>
    range(rows).flatMap((i) => [
      ...parts.flatMap(({ panel, column }, part) =>
        body(
          sum(i, part),
          at(row, 4 * (panelColumns * panel + column)),
          masked && panel === panels - 1 ? masks[part] : undefined,
        ),
      ),
      ...addTo(row, rowC),
    ]);
  const turn: Code = [
    ...parts.flatMap(({ panel, column }, part) => {
      const offset = bytesOfB * column;
      const from = panel === 0 ? at(atB, offset) : indexed(atB, panelB, 1, offset);
      return kind.loadB[format](partsOfB[part]!, from);
    }),
    ...addTo(atB, rowB),
    ...range(rows).flatMap((i) => {
      const number = numbers[i % numbers.length]!;
      return [
        ...kind.broadcast(number, rowOfA(i)),
        ...parts.flatMap((_, part) => kind.multiplyAdd(sum(i, part), number, partsOfB[part]!)),
      ];
    }),
    ...pointers.flatMap((pointer) => addTo(pointer, stepK)),
  ];
  const masksReady = masked ? kind.masksReady : [];
  return [
    ...pointers.flatMap((pointer, i) =>
      i === 0
        ? move(pointer, a)
        : [...move(pointer, pointers[i - 1]!), ...advance(pointer, stepI, rowsOfPointer)],
    ),
    ...move(atB, b),
    ...move(left, tileC),
    ...advance(left, rowC, rows),
    ...range(rows).flatMap((i) => [
      ...range(panels).flatMap((line) => prefetchToWrite(at(left, lineBytes * line))),
      ...prefetchToWrite(at(left, lineBytes * panels - 4)),
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
      [...move(left, tileC), ...each(left, kind.load)],
      range(rows * parts.length).flatMap((register) => kind.clear(register)),
    ),
    ...move(left, depth),
    ...countDown(left, 4, ...range(4).map(() => turn)),
    ...countDown(left, 1, turn),
    ...masksReady,
    ...each(tileC, (sum, place, mask) => kind.store(place, sum, mask)),
    ...advance(a, stepI, rows),
    ...giveBack,
  ];
}

/**
 * product(a, b, c, stepI, stepK, rowC, rowB, panelB, k, columns, rest, strips, tall, low, adds, aheadA, stepA, aheadB, stepB,
 * restBeside): C (+)= A·B, of which B is stored as `format` says, for `strips` tiles of most rows and two of `tall` and `low`
 * rows (0: none), times `columns` tiles of most panels, which are `panelB` bytes apart, and one whose last panel has `rest`
 * columns and is alone, or `restBeside` and stands beside a whole one. Each tile brings near some lines from aheadA and aheadB
 * on, which move by stepA and stepB bytes (0: nothing). Returns its address.
 */
export function placeProduct(program: Program, lanes: Lanes, format: FrozenFormat): number {
  const [kind, most] = [kinds[lanes], tileSizes[lanes]];
  /** Sets or adds to C in tiles of so many panels, from the top to the bottom, and moves on behind them. */
  const column = (panels: number, masked: boolean): Code => {
    const tiles = range(most.rows).map((i) => program.place(tile(kind, i + 1, panels, masked, format)));
    const table = program.words(
      rbx,
      Int32Array.from([0, ...tiles].flatMap((place) => [(place % 2 ** 32) | 0, place / 2 ** 32])),
    );
    const callTile = (rows: Memory): Code => [
      ...move(rax, rows),
      ...unlessZero(rax, [...program.pool(rbx), ...callAt(indexed(rbx, rax, 8, table.offset))]),
    ];
    return [
      ...move(a, startA),
      ...move(tileC, c),
      ...move(r10, strips),
      ...countDown(r10, 1, keep(stripCounter, r10), call(tiles.at(-1)!), move(r10, stripCounter)),
      ...callTile(tall),
      ...callTile(low),
      ...range(panels).flatMap(() => addTo(b, panelB)),
      ...[...move(rax, c), ...addNumber(rax, 4 * panelColumns * panels), ...keep(c, rax)],
    ];
  };
  const whole = column(most.panels, false);
  const edges = range(most.panels).map((beside) => {
    const count = beside === 0 ? rest : restBeside;
    return [
      ...move(r10, count),
      ...unlessZero(r10, [...kind.makeMask(program), ...column(beside + 1, true)]),
    ];
  });
  return program.place(
    procedure(
      slots,
      [aheadA, aheadB].flatMap(({ start, now }) => [...move(rax, start), ...keep(now, rax)]),
      [...keep(startA, a), ...keep(c, rdx), ...move(rowB, firstOfStack), ...move(panelB, secondOfStack)],
      move(r10, columns),
      countDown(r10, 1, keep(counter, r10), whole, move(r10, counter)),
      ...edges,
    ),
  );
}
