// Attention of queries to keys and values in blocks, in machine code: what ../wasm/paged-attention.ts does, and says where
// things lie. Each row is computed by itself, so a token's result is the same to the bit, whether it is read alone or with
// others.
import { chunk as pieces } from '../../domain/chunk.ts';
import { blockTokens } from '../decoder.ts';
import type { Heap } from '../wasm/heap.ts';
import { type HeadShape, type Paging, tokenRowFields } from '../wasm/paged-attention.ts';
import {
  add,
  addNumber,
  addTo,
  at,
  broadcast,
  type Code,
  call,
  clear,
  countDown,
  indexed,
  keep,
  load,
  loadNumber,
  type Memory,
  move,
  moveNumber,
  moveUnsigned,
  multiply,
  multiplyAdd,
  prefetch,
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
  shiftLeft,
  slot,
  store,
  storeNumber,
  subtract,
  subtractFrom,
  times,
} from './assembler.ts';
import type { Placed, Program } from './executable.ts';
import type { MachineProducts } from './product.ts';

/** Bytes of a vector register, and of a row of keys in a block. */
const [vector, keyRow] = [32, 4 * blockTokens];
/** Bytes that memory gives at a time. */
const line = 64;
/** Registers of tokens' scores. */
const tokenParts = keyRow / vector;
/** Coordinates that a turn of the score loop takes. */
const unrolled = 8;

/** Whether heads of this size can be walked along: halves are rotated a register at a time. */
export const fitsMachineCode = (headSize: number): boolean => headSize % 16 === 0;

// What the pieces below work with: queries or their results, keys or values, scores, the distance between the scores of two
// queries; where the table goes on, how many blocks are left, and the distance from a block to the one behind it.
const [queries, source, scores, rowScores, table, blocks, ahead] = [rsi, rcx, rdi, r9, r10, r11, rbx];

/** Lines of the next block come while this one is worked with: contexts of many rows do not stay near. */
const prefetchAhead = (offset: number, length: number): Code =>
  range(Math.ceil(length / line)).flatMap((i) => prefetch(indexed(source, ahead, 1, offset + line * i)));

/**
 * Scores of a block's tokens for up to 4 queries, which lie one behind the other, each with the keys of one of the heads
 * that begin at `source`. Moves `queries` and `scores` on to the next ones.
 */
function scoreChunk(heads: readonly number[], dh: number): Code {
  const sum = (i: number, part: number) => tokenParts * i + part;
  const spread = (i: number) => 8 + i;
  const keys = (part: number) => 12 + part;
  const parts = range(tokenParts);
  const column = (d: number): Code =>
    heads.flatMap((head, i) => [
      // Keys that several queries meet are loaded once.
      ...(head === heads[i - 1]
        ? []
        : [
            ...prefetchAhead(keyRow * (head * dh + d), keyRow),
            ...parts.flatMap((part) =>
              load(keys(part), at(source, keyRow * (head * dh + d) + vector * part)),
            ),
          ]),
      ...broadcast(spread(i), at(queries, 4 * (i * dh + d))),
      ...parts.flatMap((part) => multiplyAdd(sum(i, part), spread(i), keys(part))),
    ]);
  return [
    ...heads.flatMap((_, i) => parts.flatMap((part) => clear(sum(i, part)))),
    ...moveNumber(rax, dh),
    ...countDown(
      rax,
      unrolled,
      range(unrolled).flatMap(column),
      addNumber(queries, 4 * unrolled),
      addNumber(source, keyRow * unrolled),
    ),
    ...heads.flatMap((_, i) => [
      ...parts.flatMap((part) => store(at(scores, vector * part), sum(i, part))),
      ...addTo(scores, rowScores),
    ]),
    ...addNumber(queries, 4 * dh * (heads.length - 1)),
    ...addNumber(source, -keyRow * dh),
  ];
}

/** How many queries mix together: their results stay in registers, 8 at most. */
const mixedTogether = (dh: number): number => (4 * dh * 2 <= 8 * vector ? 2 : 1);

/**
 * Adds a block's values to the results of one or two queries, weighted; as `scoreChunk`, with values for keys and results
 * for queries.
 */
function mixChunk(heads: readonly number[], dh: number): Code {
  const width = Math.min(8, (4 * dh) / vector);
  const sum = (i: number, part: number) => width * i + part;
  const spread = (i: number) => 8 + i;
  const weight = (i: number, token: number): Memory =>
    i === 0 ? at(scores, 4 * token) : indexed(scores, rowScores, 1, 4 * token);
  const partsFrom = (first: number) => range(Math.min(width, (4 * dh) / vector - first));
  const each = (first: number, body: (register: Register, offset: number, i: number) => Code): Code =>
    heads.flatMap((_, i) =>
      partsFrom(first).flatMap((part) => body(sum(i, part), vector * (first + part), i)),
    );
  const valuesAt = (head: number, token: number, offset: number) =>
    at(source, 4 * dh * (head * blockTokens + token) + offset);
  /** Values that two queries meet are loaded once; there is no room for more of them. */
  const shared = heads.length === 2 && heads[0] === heads[1];
  const values = (offset: number, first: number) => 10 + offset / vector - first;
  return [
    ...range(Math.ceil((4 * dh) / vector / width)).flatMap((turn) => [
      ...each(turn * width, (register, offset, i) => load(register, at(queries, 4 * dh * i + offset))),
      ...range(blockTokens).flatMap((token) => [
        ...(turn === 0 ? [...new Set(heads)] : []).flatMap((head) =>
          prefetchAhead(4 * dh * (head * blockTokens + token), 4 * dh),
        ),
        ...heads.flatMap((_, i) => broadcast(spread(i), weight(i, token))),
        ...(shared
          ? partsFrom(turn * width).flatMap((part) =>
              load(10 + part, valuesAt(heads[0]!, token, vector * (turn * width + part))),
            )
          : []),
        ...each(turn * width, (register, offset, i) =>
          multiplyAdd(
            register,
            spread(i),
            shared ? values(offset, turn * width) : valuesAt(heads[i]!, token, offset),
          ),
        ),
      ]),
      ...each(turn * width, (register, offset, i) => store(at(queries, 4 * dh * i + offset), register)),
    ]),
    ...heads.flatMap(() => addTo(scores, rowScores)),
    ...addNumber(queries, 4 * dh * heads.length),
  ];
}

/** Register = the block that the table names next, `offset` bytes into it; `base` and `offset` lie in memory. */
const blockAt = (register: Register, base: Memory, offset: Memory): Code => [
  ...moveUnsigned(register, at(table)),
  ...addTo(register, base),
  ...addTo(register, offset),
];

/** As `blockAt`, and the table goes on. */
const nextBlock = (register: Register, base: Memory, offset: Memory): Code => [
  ...blockAt(register, base, offset),
  ...addNumber(table, 4),
];

/** Queries of one row that walk along the blocks together, by the key/value heads that they meet: 4 where they fit. */
function unitOf({ heads, keyValueHeads }: HeadShape): {
  readonly queries: number[];
  readonly sources: number;
} {
  const group = heads / keyValueHeads;
  const sources = [4, 2, 1].find(
    (count) => keyValueHeads % count === 0 && (count === 1 || count * group <= 4),
  )!;
  return { queries: range(sources * group).map((query) => Math.floor(query / group)), sources };
}

/**
 * writeTokens(k, v, tokens, rows, layer, base) and attendTokens(q, tokens, scores, rows, layer, base): the two halves of what
 * ../wasm/paged-attention.ts does, each for all rows. What stands behind the tokens that a row sees decides nothing of it.
 */
function placeAttention(program: Program, shape: HeadShape, softmax: number) {
  const { heads, keyValueHeads, headSize: dh } = shape;
  const [q, k, v, tokens] = [r12, r13, r14, r15];
  const [rows, base, keysAt, valuesAt, scoresAt] = range(5).map(slot) as [
    Memory,
    Memory,
    Memory,
    Memory,
    Memory,
  ];
  const slots = 5 + tokenRowFields.length;
  const field = Object.fromEntries(tokenRowFields.map((name, i) => [name, slot(5 + i)])) as Record<
    (typeof tokenRowFields)[number],
    Memory
  >;
  const addresses: readonly string[] = ['table', 'cos', 'sin', 'block'];
  const [headBytes, width] = [4 * dh * blockTokens, 4 * dh];

  /** As `rotateRows` in ../wasm/strided.ts, to the bit: turns the numbers at `vectorAt` in place. */
  const rotate = (vectorAt: Register, scale: number): Code => [
    ...move(rax, field.cos),
    ...move(rdx, field.sin),
    ...program.pool(rcx),
    ...range(width / 2 / vector).flatMap((i) => {
      const [left, right] = [at(vectorAt, vector * i), at(vectorAt, width / 2 + vector * i)];
      const scaled = (to: Register, from: Memory) => [
        ...load(to, from),
        ...(scale === 1 ? [] : multiply(to, to, program.constant(rcx, scale))),
      ];
      return [
        ...[...load(0, left), ...load(1, right)],
        ...[...scaled(2, at(rax, vector * i)), ...scaled(3, at(rdx, vector * i))],
        ...[...multiply(4, 0, 2), ...multiply(5, 1, 3), ...multiply(6, 1, 2), ...multiply(7, 0, 3)],
        ...[...subtract(4, 4, 5), ...add(6, 6, 7), ...store(left, 4), ...store(right, 6)],
      ];
    }),
  ];
  /** Does something with each block of the row, and in it with each unit of heads. */
  const walk = (
    offset: Memory,
    chunk: (heads: readonly number[], dh: number) => Code,
    together: number,
  ): Code => {
    const unit = unitOf(shape);
    return [
      ...[...move(table, field.table), ...move(blocks, field.blocks), ...move(r8, scoresAt)],
      ...countDown(
        blocks,
        1,
        [...move(queries, q), ...move(scores, r8), ...nextBlock(source, base, offset)],
        // Behind the last block lies the table of the next row, or what is no block: a hint does no harm.
        [...blockAt(ahead, base, offset), ...subtractFrom(ahead, source)],
        moveNumber(rdx, heads / unit.queries.length),
        countDown(
          rdx,
          1,
          [...pieces(unit.queries, together)].flatMap((part) => chunk(part, dh)),
          addNumber(source, headBytes * unit.sources),
        ),
        addNumber(r8, keyRow),
      ),
    ];
  };
  const readFields: Code = tokenRowFields.flatMap((name, i) => [
    ...moveUnsigned(rax, at(tokens, 4 * i)),
    ...(addresses.includes(name) ? addTo(rax, base) : []),
    ...keep(field[name], rax),
  ]);
  /** Of rows, layer and base, the fourth to sixth arguments. */
  const keepPlaces: Code = [
    ...[...keep(rows, rcx), ...keep(keysAt, r8), ...keep(base, r9)],
    ...[...addNumber(r8, keyValueHeads * headBytes), ...keep(valuesAt, r8), ...move(r11, rcx)],
  ];
  const nextRow: Code = [...addNumber(tokens, 4 * tokenRowFields.length), ...move(r11, rows)];
  const write = procedure(
    slots,
    [...move(k, rdi), ...move(v, rsi), ...move(tokens, rdx), ...keepPlaces],
    countDown(
      r11,
      1,
      keep(rows, r11),
      readFields,
      [...move(rdi, field.slot), ...shiftLeft(rdi, 2), ...addTo(rdi, field.block), ...addTo(rdi, keysAt)],
      [...times(r8, field.slot, width), ...addTo(r8, field.block), ...addTo(r8, valuesAt)],
      moveNumber(r10, keyValueHeads),
      countDown(
        r10,
        1,
        rotate(k, 1),
        range(dh).flatMap((d) => [...loadNumber(0, at(k, 4 * d)), ...storeNumber(at(rdi, keyRow * d), 0)]),
        range(width / vector).flatMap((i) => [
          ...load(0, at(v, vector * i)),
          ...store(at(r8, vector * i), 0),
        ]),
        [k, v].flatMap((register) => addNumber(register, width)),
        [rdi, r8].flatMap((register) => addNumber(register, headBytes)),
      ),
      nextRow,
    ),
  );
  const attend = procedure(
    slots,
    [...move(q, rdi), ...move(tokens, rsi), ...keep(scoresAt, rdx), ...keepPlaces],
    countDown(
      r11,
      1,
      keep(rows, r11),
      readFields,
      [...move(rsi, q), ...moveNumber(r10, heads)],
      countDown(r10, 1, rotate(rsi, 1 / Math.sqrt(dh)), addNumber(rsi, width)),
      [...move(rowScores, field.blocks), ...shiftLeft(rowScores, Math.log2(keyRow))],
      walk(keysAt, scoreChunk, 4),
      [...move(rdi, scoresAt), ...moveNumber(rsi, heads), ...move(rdx, field.blocks)],
      [
        ...shiftLeft(rdx, Math.log2(blockTokens)),
        ...move(rcx, field.visible),
        ...moveNumber(r8, 0),
        ...call(softmax),
      ],
      [...clear(0), ...move(rdi, q), ...moveNumber(rax, heads * dh)],
      countDown(rax, vector / 4, store(at(rdi), 0), addNumber(rdi, vector)),
      [...move(rowScores, field.blocks), ...shiftLeft(rowScores, Math.log2(keyRow))],
      walk(valuesAt, mixChunk, mixedTogether(dh)),
      addNumber(q, heads * width),
      nextRow,
    ),
  );
  return { write: program.place(write), attend: program.place(attend) };
}

/** Has rows done by several threads, where that is worth it: see `MachineProducts.shareRows`. */
export type ShareRows = MachineProducts['shareRows'];

/**
 * The function for heads of a size that `fitsMachineCode` takes, over the heap that begins at `base()`; seals the program.
 * `softmaxRows` is that of the vector functions.
 */
export function assembleMachinePaging(
  program: Program,
  shape: HeadShape,
  softmaxRows: Placed,
  heap: Heap,
  base: () => number,
  shareRows: ShareRows,
): Paging {
  const { heads, headSize: dh } = shape;
  const placed = placeAttention(program, shape, softmaxRows.address);
  program.seal();
  const [write, attend] = [placed.write, placed.attend].map((address) => {
    const parameters = ['int64_t', 'int64_t', 'int64_t'] as const;
    return program.callable({ address, pointers: 3, parameters, result: 'void' });
  });
  return {
    attendTokens: (...values) => {
      const [q, k, v, tokens, rows, layer, scores] = values as [
        number,
        number,
        number,
        number,
        number,
        number,
        number,
      ];
      const start = base();
      write!(start + k, start + v, start + tokens, rows, layer, start);
      const fields = heap.ints(tokens, rows * tokenRowFields.length);
      const blocksOf = (row: number) => fields[row * tokenRowFields.length + blocksField]!;
      shareRows(rows, blocksOf, 2 * heads * dh * blockTokens, heads * blockTokens, (first, count, room) => {
        const start = base();
        const from = [q + 4 * heads * dh * first, tokens + 4 * tokenRowFields.length * first, room ?? scores];
        return [placed.attend, attend!, [...from.map((at) => start + at), count, layer, start]];
      });
    },
  };
}

const blocksField = tokenRowFields.indexOf('blocks');
