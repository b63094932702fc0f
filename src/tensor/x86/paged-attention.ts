// Attention of queries to keys and values in blocks, in machine code: what ../wasm/paged-attention.ts does, and says where
// things lie. Each element is summed in the same order by all functions here, so a query's result is the same to the bit,
// whether its token is read alone or with others.
import { chunk as pieces } from '../../domain/chunk.ts';
import { blockTokens } from '../decoder.ts';
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
  rcx,
  rdi,
  rdx,
  rsi,
  shiftLeft,
  slot,
  stackArgument,
  store,
  storeNumber,
  subtract,
  times,
} from './assembler.ts';
import type { MachineFunction, Placed, Program } from './executable.ts';

/** Bytes of a vector register, and of a row of keys in a block. */
const [vector, keyRow] = [32, 4 * blockTokens];
/** Registers of tokens' scores. */
const tokenParts = keyRow / vector;
/** Coordinates that a turn of the score loop takes. */
const unrolled = 8;

/** Whether heads of this size can be walked along: halves are rotated a register at a time. */
export const fitsMachineCode = (headSize: number): boolean => headSize % 16 === 0;

// What the pieces below work with: queries or their results, keys or values, scores, the distance between the scores of two
// queries; where the table goes on, and how many blocks are left.
const [queries, source, scores, rowScores, table, blocks] = [rsi, rcx, rdi, r9, r10, r11];

/**
 * Scores of a block's tokens for up to 4 queries, which lie one behind the other, each with the keys of one of the heads
 * that begin at `source`. Moves `queries` and `scores` on to the next ones.
 */
function scoreChunk(heads: readonly number[], dh: number): Code {
  const sum = (i: number, part: number) => tokenParts * i + part;
  const spread = (i: number) => 8 + i;
  const parts = range(tokenParts);
  return [
    ...heads.flatMap((_, i) => parts.flatMap((part) => clear(sum(i, part)))),
    ...moveNumber(rax, dh),
    ...countDown(
      rax,
      unrolled,
      range(unrolled).flatMap((d) =>
        heads.flatMap((head, i) => [
          ...broadcast(spread(i), at(queries, 4 * (i * dh + d))),
          ...parts.flatMap((part) =>
            multiplyAdd(sum(i, part), spread(i), at(source, keyRow * (head * dh + d) + vector * part)),
          ),
        ]),
      ),
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
  const each = (first: number, body: (register: Register, offset: number, i: number) => Code): Code =>
    heads.flatMap((_, i) =>
      range(Math.min(width, (4 * dh) / vector - first)).flatMap((part) =>
        body(sum(i, part), vector * (first + part), i),
      ),
    );
  return [
    ...range(Math.ceil((4 * dh) / vector / width)).flatMap((turn) => [
      ...each(turn * width, (register, offset, i) => load(register, at(queries, 4 * dh * i + offset))),
      ...range(blockTokens).flatMap((token) => [
        ...heads.flatMap((_, i) => broadcast(spread(i), weight(i, token))),
        ...each(turn * width, (register, offset, i) =>
          multiplyAdd(register, spread(i), at(source, 4 * dh * (heads[i]! * blockTokens + token) + offset)),
        ),
      ]),
      ...each(turn * width, (register, offset, i) => store(at(queries, 4 * dh * i + offset), register)),
    ]),
    ...heads.flatMap(() => addTo(scores, rowScores)),
    ...addNumber(queries, 4 * dh * heads.length),
  ];
}

/** Register = the block that the table names next, `offset` bytes into it; `base` and `offset` lie in memory. */
const nextBlock = (register: Register, base: Memory, offset: Memory): Code => [
  ...moveUnsigned(register, at(table)),
  ...addTo(register, base),
  ...addTo(register, offset),
  ...addNumber(table, 4),
];

/**
 * span(queries or results, table, scores, blocks, offset, rowScores, base): what `chunks` do with each block of a head that is
 * `offset` bytes into it.
 */
function spanFunction(chunks: Code): Code {
  const [base, offset, firstQuery, firstScore] = [slot(0), slot(1), slot(2), slot(3)];
  return procedure(
    4,
    [...keep(firstQuery, rdi), ...move(table, rsi), ...move(scores, rdx), ...move(blocks, rcx)],
    [...keep(offset, r8), ...move(rax, stackArgument(0)), ...keep(base, rax)],
    countDown(
      blocks,
      1,
      [...move(queries, firstQuery), ...keep(firstScore, scores), ...nextBlock(source, base, offset)],
      chunks,
      [...move(scores, firstScore), ...addNumber(scores, keyRow)],
    ),
  );
}

/** Heads of one row that walk along the blocks together: key/value heads by number, one for each query. */
function unitOf({ heads, keyValueHeads }: HeadShape): {
  readonly queries: number[];
  readonly sources: number;
} {
  const group = heads / keyValueHeads;
  if (group > 1) return { queries: Array<number>(group).fill(0), sources: 1 };
  const together = heads % 4 === 0 ? 4 : heads % 2 === 0 ? 2 : 1;
  return { queries: range(together), sources: together };
}

/** attendTokens(q, k, v, tokens, scores, rows, layer, base): see ../wasm/paged-attention.ts. */
function attendTokens(program: Program, shape: HeadShape, softmax: number): Code {
  const { heads, keyValueHeads, headSize: dh } = shape;
  const [q, k, v, tokens] = [r12, r13, r14, r15];
  const [rows, base, keysAt, valuesAt, scoresAt] = range(5).map(slot) as [
    Memory,
    Memory,
    Memory,
    Memory,
    Memory,
  ];
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
  return procedure(
    5 + tokenRowFields.length,
    [...move(q, rdi), ...move(k, rsi), ...move(v, rdx), ...move(tokens, rcx), ...keep(scoresAt, r8)],
    [...keep(rows, r9), ...move(rax, stackArgument(0)), ...keep(keysAt, rax)],
    [...addNumber(rax, keyValueHeads * headBytes), ...keep(valuesAt, rax)],
    [...move(rax, stackArgument(1)), ...keep(base, rax), ...move(r11, rows)],
    countDown(
      r11,
      1,
      keep(rows, r11),
      tokenRowFields.flatMap((name, i) => [
        ...moveUnsigned(rax, at(tokens, 4 * i)),
        ...(addresses.includes(name) ? addTo(rax, base) : []),
        ...keep(field[name], rax),
      ]),
      // Keys and values of this token go into its block.
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
      [...addNumber(q, heads * width), ...addNumber(tokens, 4 * tokenRowFields.length), ...move(r11, rows)],
    ),
  );
}

/** What of paged attention runs in machine code. */
export type MachinePaging = Pick<
  Paging,
  'score1' | 'score2' | 'score4' | 'mix1' | 'mix2' | 'mix4' | 'softmaxRows' | 'attendTokens'
>;

/**
 * The functions for heads of a size that `fitsMachineCode` takes, over the heap that begins at `base()`; seals the program.
 * `softmaxRows` is that of the vector functions.
 */
export function assembleMachinePaging(
  program: Program,
  shape: HeadShape,
  softmaxRows: Placed,
  base: () => number,
): MachinePaging {
  const span = (count: number, chunk: (heads: readonly number[], dh: number) => Code, together: number) => {
    const queries = Array<number>(count).fill(0);
    return program.place(
      spanFunction([...pieces(queries, together)].flatMap((part) => chunk(part, shape.headSize))),
    );
  };
  const counts = [1, 2, 4] as const;
  const score = counts.map((count) => span(count, scoreChunk, 4));
  const mix = counts.map((count) => span(count, mixChunk, mixedTogether(shape.headSize)));
  const tokens = program.place(attendTokens(program, shape, softmaxRows.address));
  program.seal();
  const callable = (address: number, pointers: number, whole: number): MachineFunction =>
    program.callable({
      address,
      pointers,
      parameters: Array<'int64_t'>(whole).fill('int64_t'),
      result: 'void',
    });
  const [attend, normalize] = [callable(tokens, 5, 3), program.callable(softmaxRows)];
  const scoreOf = (address: number): MachineFunction => {
    const run = callable(address, 3, 4);
    return (q, table, blocks, offset, scores, rowScores) => {
      const start = base();
      return run(start + q!, start + table!, start + scores!, blocks!, offset!, rowScores!, start);
    };
  };
  const mixOf = (address: number): MachineFunction => {
    const run = callable(address, 3, 4);
    return (weights, rowWeights, table, blocks, offset, out) => {
      const start = base();
      return run(start + out!, start + table!, start + weights!, blocks!, offset!, rowWeights!, start);
    };
  };
  return {
    ...{ score1: scoreOf(score[0]!), score2: scoreOf(score[1]!), score4: scoreOf(score[2]!) },
    ...{ mix1: mixOf(mix[0]!), mix2: mixOf(mix[1]!), mix4: mixOf(mix[2]!) },
    softmaxRows: (x, rows, columns, seen, step) => normalize(base() + x!, rows!, columns!, seen!, step!),
    attendTokens: (q, k, v, tokens, rows, layer, scores) => {
      const start = base();
      return attend(
        start + q!,
        start + k!,
        start + v!,
        start + tokens!,
        start + scores!,
        rows!,
        layer!,
        start,
      );
    },
  };
}
