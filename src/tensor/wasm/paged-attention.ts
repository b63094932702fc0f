// Attention of queries to keys and values that lie in blocks of tokens, anywhere on the wasm heap. A block holds, for
// one key/value head, the keys transposed [dh, 16], so that a register takes the scores of four tokens, and the
// values [16, dh].
import { blockTokens } from '../decoder.ts';
import {
  add,
  addIntegers,
  advance,
  assemble,
  type Code,
  constant,
  countDown,
  type FunctionBuilder,
  get,
  integer,
  load,
  loadInteger,
  loadSplat,
  mul,
  range,
  set,
  store,
  type WasmMemory,
  withIntegers,
} from './assembler.ts';
import type { Vectors } from './vectors.ts';

/** Queries that walk along the blocks together: as many as the registers take. */
type Queries = 1 | 2 | 4;

/**
 * scores[i, s] = Σ_d q[i, d] · K[d, s] for all tokens of the blocks. The queries are contiguous, the rows of `scores`
 * `rowScores` bytes apart; `table` holds the blocks' addresses and `offset` where in them the keys are.
 */
function scoreBlocks(queries: Queries, dh: number): FunctionBuilder {
  const builder = withIntegers('q', 'table', 'blocks', 'offset', 'scores', 'rowScores');
  const { q, table, blocks, offset, scores, rowScores } = builder.parameters;
  const parts = queries === 4 ? 2 : 4; // registers' worth of tokens at a time
  const [qs, outs] = [builder.locals('i32', queries), builder.locals('i32', queries)];
  const [keys, left] = [builder.local('i32'), builder.local('i32')];
  const [loaded, number] = [builder.locals('v128', parts), builder.local('v128')];
  const sums = range(queries).map(() => builder.locals('v128', parts));

  const column = (d: number): Code => [
    ...loaded.flatMap((local, part) => set(local, load(4, get(keys), 4 * (d * blockTokens + 4 * part)))),
    ...range(queries).flatMap((i) => [
      ...set(number, loadSplat(get(qs[i]!), 4 * d)),
      ...sums[i]!.flatMap((sum, part) => set(sum, add(get(sum), mul(get(number), get(loaded[part]!))))),
    ]),
  ];
  const tokens = (first: number): Code => [
    ...range(queries).flatMap((i) => set(qs[i]!, addIntegers(get(q), integer(4 * dh * i)))),
    ...set(keys, addIntegers(addIntegers(loadInteger(get(table)), get(offset)), integer(4 * first))),
    ...sums.flat().flatMap((sum) => set(sum, constant(0))),
    ...set(left, integer(dh)),
    ...countDown(
      left,
      4,
      range(4).flatMap(column),
      advance(keys, integer(16 * blockTokens)),
      qs.flatMap((local) => advance(local, integer(16))),
    ),
    ...sums.flatMap((row, i) =>
      row.flatMap((sum, part) => store(4, get(outs[i]!), get(sum), 4 * (first + 4 * part))),
    ),
  ];
  return builder.body(
    outs.flatMap((local, i) =>
      set(local, i === 0 ? get(scores) : addIntegers(get(outs[i - 1]!), get(rowScores))),
    ),
    countDown(
      blocks,
      1,
      range(blockTokens / (4 * parts)).flatMap((part) => tokens(4 * parts * part)),
      advance(table, integer(4)),
      outs.flatMap((local) => advance(local, integer(4 * blockTokens))),
    ),
  );
}

/**
 * out[i, d] = Σ_s weights[i, s] · V[s, d] over all tokens of the blocks, with the rows of `weights` `rowWeights` bytes
 * apart and the queries' results contiguous.
 */
function mixBlocks(queries: Queries, dh: number): FunctionBuilder {
  const builder = withIntegers('weights', 'rowWeights', 'table', 'blocks', 'offset', 'out');
  const { weights, rowWeights, table, blocks, offset, out } = builder.parameters;
  const parts = Math.min(8 / queries, dh % 32 === 0 ? 8 : dh % 16 === 0 ? 4 : 2);
  const [ws, at] = [builder.locals('i32', queries), builder.local('i32')];
  const [chunks, left, place] = [builder.local('i32'), builder.local('i32'), builder.local('i32')];
  const [loaded, number] = [builder.locals('v128', parts), builder.local('v128')];
  const sums = range(queries).map(() => builder.locals('v128', parts));

  const token = (s: number): Code => [
    ...loaded.flatMap((local, part) => set(local, load(4, get(at), 4 * (s * dh + 4 * part)))),
    ...range(queries).flatMap((i) => [
      ...set(number, loadSplat(get(ws[i]!), 4 * s)),
      ...sums[i]!.flatMap((sum, part) => set(sum, add(get(sum), mul(get(number), get(loaded[part]!))))),
    ]),
  ];
  return builder.body(
    set(chunks, integer(dh / (4 * parts))),
    countDown(
      chunks,
      1,
      ws.flatMap((local, i) =>
        set(local, i === 0 ? get(weights) : addIntegers(get(ws[i - 1]!), get(rowWeights))),
      ),
      [...set(place, get(table)), ...set(left, get(blocks))],
      sums.flat().flatMap((sum) => set(sum, constant(0))),
      countDown(
        left,
        1,
        set(at, addIntegers(loadInteger(get(place)), get(offset))),
        range(blockTokens).flatMap(token),
        ws.flatMap((local) => advance(local, integer(4 * blockTokens))),
        advance(place, integer(4)),
      ),
      sums.flatMap((row, i) =>
        row.flatMap((sum, part) => store(4, get(out), get(sum), 4 * (i * dh + 4 * part))),
      ),
      advance(out, integer(16 * parts)),
      advance(offset, integer(16 * parts)),
    ),
  );
}

/** Writes `length` contiguous numbers into a column of a block's keys. */
function writeColumn(): FunctionBuilder {
  const builder = withIntegers('from', 'to', 'length');
  const { from, to, length } = builder.parameters;
  return builder.body(
    countDown(
      length,
      1,
      store(1, get(to), load(1, get(from))),
      advance(from, integer(4)),
      advance(to, integer(4 * blockTokens)),
    ),
  );
}

/** Whether heads of this size can be walked along. */
export const fitsPaging = (dh: number): boolean => dh % 8 === 0;

/** Compiles the functions for heads of one size, a multiple of 8, over TF.js' memory. */
export function assemblePaging(memory: WasmMemory, dh: number) {
  const functions = {
    score1: scoreBlocks(1, dh),
    score2: scoreBlocks(2, dh),
    score4: scoreBlocks(4, dh),
    mix1: mixBlocks(1, dh),
    mix2: mixBlocks(2, dh),
    mix4: mixBlocks(4, dh),
    writeColumn: writeColumn(),
  };
  return assemble(functions, memory);
}

/** Queries of one key/value head of one sequence, and what they see. */
export interface PagedQueries {
  /** Addresses: queries [count, dh], scaled by 1/√dh; their results [count, dh]; scratch for 4 rows of scores. */
  readonly q: number;
  readonly out: number;
  readonly scratch: number;
  readonly count: number;
  /** Queries of one token: they stand together and see the same. */
  readonly group: number;
  /** Tokens that the first query's token sees, itself included; each later token sees one more. */
  readonly visible: number;
  /** Address of the int32 table of the sequence's blocks, and where in a block the head's keys begin, in bytes. */
  readonly table: number;
  readonly offset: number;
}

/** softmax(q·Kᵀ)·V, causal. What a query gets does not depend on which others stand beside it. */
export function attendPaged(
  paging: ReturnType<typeof assemblePaging>,
  { softmaxRows }: Vectors,
  dh: number,
  { q, out, scratch, count, group, visible, table, offset }: PagedQueries,
): void {
  const values = offset + 4 * dh * blockTokens;
  for (let first = 0, size: Queries; first < count; first += size) {
    size = count - first >= 4 ? 4 : count - first >= 2 ? 2 : 1;
    const blocks = Math.ceil((visible + Math.floor((first + size - 1) / group)) / blockTokens);
    const row = 4 * blocks * blockTokens;
    paging[`score${size}`](q + 4 * first * dh, table, blocks, offset, scratch, row);
    const seen = visible + Math.floor(first / group);
    if (group === 1 || group >= count) {
      softmaxRows(scratch, size, blocks * blockTokens, seen, group === 1 ? 1 : 0);
    } else {
      for (let i = 0; i < size; i++) {
        softmaxRows(scratch + i * row, 1, blocks * blockTokens, visible + Math.floor((first + i) / group), 0);
      }
    }
    paging[`mix${size}`](scratch, row, table, blocks, values, out + 4 * first * dh);
  }
}
