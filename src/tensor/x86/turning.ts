// Rows of a matrix turned into panels of 16 columns, as products read them; and what brings numbers from the formats of files into
// those of the engine on the way there.
import type { FrozenFormat } from '../frozen-matrix.ts';
import {
  addNumber,
  addTo,
  at,
  type Code,
  clear,
  countDown,
  indexed,
  interleaveHigh,
  interleaveLow,
  joinHalves,
  joinWords,
  load,
  loadNumber,
  loadWords,
  type Memory,
  move,
  moveNumber,
  procedure,
  type Register,
  r8,
  r9,
  r10,
  r11,
  r12,
  r13,
  r14,
  range,
  rax,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
  shiftLanes,
  shiftLanesRight,
  shuffle,
  stackArgument,
  store,
  storeHalf,
  storeNumber,
  unlessZero,
} from './assembler.ts';
import { findMachine, type MachineFunction, Program } from './executable.ts';
import { advance, panelColumns } from './tiles.ts';

/** How eight numbers that are stored as the format says come into a register as float32, and the bytes of one. */
const formats = {
  float32: { bytes: 4, load: (to: Register, from: Memory): Code => load(to, from) },
  // A bfloat16 is the upper half of a float32.
  bfloat16: {
    bytes: 2,
    load: (to: Register, from: Memory): Code => [...loadWords(to, from), ...shiftLanes(to, to, 16)],
  },
} as const satisfies Record<FrozenFormat, unknown>;

/** Registers 8 … 15, eight rows of a column each, to columns of 16 rows that begin at `to`. */
const storeColumns: Readonly<Record<FrozenFormat, (to: Register) => Code>> = {
  float32: (to) => range(8).flatMap((i) => store(at(to, 4 * panelColumns * i), 8 + i)),
  // What the lower halves hold is cut off.
  bfloat16: (to) =>
    [0, 2, 4, 6].flatMap((i) => [
      ...shiftLanesRight(8 + i, 8 + i, 16),
      ...shiftLanesRight(9 + i, 9 + i, 16),
      ...joinWords(8 + i, 8 + i, 9 + i),
      ...storeHalf(at(to, 2 * panelColumns * i), 8 + i, 0),
      ...storeHalf(at(to, 2 * panelColumns * (i + 1)), 8 + i, 1),
    ]),
};

/**
 * pack(b, out, rowB, k, panels, rest, panel): as `placePackRows`, of B stored transposed [n, k] with rows `rowB` bytes apart: squares of
 * 8 by 8 are turned in registers. Panels begin `panel` bytes apart, in the format `as`. Where B or these are no float32 there may be no
 * `rest`, and k is a multiple of 8.
 */
export function placePackColumns(
  program: Program,
  format: FrozenFormat,
  as: FrozenFormat = 'float32',
): number {
  const { bytes, load: loadB } = formats[format];
  const bytesOut = formats[as].bytes;
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
          ...(part === 0
            ? []
            : [...advance(from, step, 4), ...advance(from, step, 4), ...addNumber(to, 8 * bytesOut)]),
          ...move(left, k),
          ...countDown(
            left,
            8,
            square,
            storeColumns[as](to),
            addNumber(from, 8 * bytes),
            addNumber(to, 8 * bytesOut * panelColumns),
          ),
          ...countDown(left, 1, column(moveNumber(r14, 8))),
        ]),
        range(4).flatMap(() => advance(rdi, step, 4)),
        addTo(out, stackArgument(0)),
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

/** widen(from, to, n): so many numbers of bfloat16, a multiple of 8, as float32. */
const placeWiden = (program: Program): number =>
  program.place(
    procedure(
      0,
      countDown(
        rdx,
        8,
        formats.bfloat16.load(0, at(rdi)),
        store(at(rsi), 0),
        addNumber(rdi, 16),
        addNumber(rsi, 32),
      ),
    ),
  );

/** Functions on addresses in the process. */
export interface Turning {
  /** turn(rows, panels, bytes of a row, numbers of a row, panels, 0, bytes of a panel): see `placePackColumns`, of float32. */
  readonly turn: Readonly<Record<FrozenFormat, MachineFunction>>;
  readonly widen: MachineFunction;
  readonly addressOf: (memory: ArrayBufferView) => number;
}

let turning: Turning | null = null;

/** Throws where there is no machine code, and so nothing that reads panels. */
export function turningCode(): Turning {
  turning ??= assembleTurning();
  return turning;
}

function assembleTurning(): Turning {
  const machine = findMachine();
  if (typeof machine === 'string') throw new Error(`There is no machine code: ${machine}.`);
  const program = new Program(machine.system);
  const place = (address: number, counts: number) => () =>
    program.callable({
      address,
      pointers: 2,
      parameters: Array<'int64_t'>(counts).fill('int64_t'),
      result: 'void',
    });
  const [wide, narrow] = (['float32', 'bfloat16'] as const).map((as) =>
    place(placePackColumns(program, 'float32', as), 5),
  );
  const widen = place(placeWiden(program), 1);
  program.seal();
  return {
    turn: { float32: wide!(), bfloat16: narrow!() },
    widen: widen(),
    addressOf: (memory) => Number(machine.system.koffi.address(memory)),
  };
}
