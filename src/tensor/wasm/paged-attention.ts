// Attention of queries to keys and values that lie in blocks of tokens, anywhere on the wasm heap. For each layer a block
// holds the keys of all key/value heads, [kv, dh, 16], so that a register takes the scores of four tokens, and then the
// values of all, [kv, 16, dh].
import { blockTokens, type DecoderShape } from '../decoder.ts';
import {
  add,
  addIntegers,
  advance,
  assemble,
  type Code,
  call,
  constant,
  countDown,
  type FunctionBuilder,
  get,
  integer,
  load,
  loadInteger,
  loadSplat,
  mul,
  multiplyIntegers,
  number,
  range,
  set,
  store,
  type WasmMemory,
  withIntegers,
} from './assembler.ts';
import { rotateRows } from './strided.ts';
import { vectorModule } from './vectors.ts';

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
  const [loaded, spread] = [builder.locals('v128', parts), builder.local('v128')];
  const sums = range(queries).map(() => builder.locals('v128', parts));

  const column = (d: number): Code => [
    ...loaded.flatMap((local, part) => set(local, load(4, get(keys), 4 * (d * blockTokens + 4 * part)))),
    ...range(queries).flatMap((i) => [
      ...set(spread, loadSplat(get(qs[i]!), 4 * d)),
      ...sums[i]!.flatMap((sum, part) => set(sum, add(get(sum), mul(get(spread), get(loaded[part]!))))),
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
 * out[i, d] += Σ_s weights[i, s] · V[s, d] over all tokens of the blocks, with the rows of `weights` `rowWeights` bytes
 * apart and the queries' results contiguous.
 */
function mixBlocks(queries: Queries, dh: number): FunctionBuilder {
  const builder = withIntegers('weights', 'rowWeights', 'table', 'blocks', 'offset', 'out');
  const { weights, rowWeights, table, blocks, offset, out } = builder.parameters;
  const parts = Math.min(8 / queries, dh % 32 === 0 ? 8 : dh % 16 === 0 ? 4 : 2);
  const [ws, at] = [builder.locals('i32', queries), builder.local('i32')];
  const [chunks, left, place] = [builder.local('i32'), builder.local('i32'), builder.local('i32')];
  const [loaded, spread] = [builder.locals('v128', parts), builder.local('v128')];
  const sums = range(queries).map(() => builder.locals('v128', parts));

  const token = (s: number): Code => [
    ...loaded.flatMap((local, part) => set(local, load(4, get(at), 4 * (s * dh + 4 * part)))),
    ...range(queries).flatMap((i) => [
      ...set(spread, loadSplat(get(ws[i]!), 4 * s)),
      ...sums[i]!.flatMap((sum, part) => set(sum, add(get(sum), mul(get(spread), get(loaded[part]!))))),
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
      sums.flatMap((row, i) =>
        row.flatMap((sum, part) => set(sum, load(4, get(out), 4 * (i * dh + 4 * part)))),
      ),
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

/** Sizes of the heads, and how many queries share a key/value head. */
export type HeadShape = Pick<DecoderShape, 'heads' | 'keyValueHeads' | 'headSize'>;

/** Bytes of one layer's keys and values in a block. */
export const layerBytes = ({ keyValueHeads, headSize }: HeadShape): number =>
  4 * keyValueHeads * 2 * headSize * blockTokens;

/** What `attendTokens` reads of a row, in this order. */
export const tokenRowFields = ['table', 'blocks', 'visible', 'cos', 'sin', 'block', 'slot'] as const;
type TokenRowField = (typeof tokenRowFields)[number];

/**
 * A row of `attendTokens`: the address of the table of its sequence's blocks, and how many they are; the tokens that it
 * sees, itself included; addresses of the cosines and sines of its position; the address of the block that it is
 * written to, and its place in there.
 */
export type TokenRow = Readonly<Record<TokenRowField, number>>;

/** The numbers of a row, in the order in which `attendTokens` reads them as int32. */
export const tokenRow = (row: TokenRow): number[] => tokenRowFields.map((name) => row[name]);

/** How many numbers those are. */
export const tokenRowNumbers = tokenRowFields.length;

/** As many queries at a time as the registers take. */
const queriesAtATime = (left: number): Queries => (left >= 4 ? 4 : left >= 2 ? 2 : 1);

/**
 * Attention of rows of one token each in one layer, row by row, so that a row sees those before it of its own sequence:
 * rotates q [rows, heads · dh] and k [rows, kv · dh], writes keys and values into the rows' blocks, and puts the result in
 * the place of q. `layer` is where in a block the layer begins, in bytes; `tokens` holds the rows' numbers, `scores` room
 * for a row of scores of each head. What a row gets does not depend on which others stand beside it.
 */
function attendTokens(
  { heads, keyValueHeads, headSize: dh }: HeadShape,
  apply: (name: string, ...values: Code[]) => Code,
): FunctionBuilder {
  const builder = withIntegers('q', 'k', 'v', 'tokens', 'rows', 'layer', 'scores');
  const { q, k, v, tokens, rows, layer, scores } = builder.parameters;
  const local = () => builder.local('i32');
  const field = Object.fromEntries(tokenRowFields.map((name) => [name, local()])) as Record<
    TokenRowField,
    number
  >;
  const [left, turn, query] = [local(), local(), local()];
  // Where in a block a head is, in which block, where its scores are, and those of the block's first head.
  const [mine, place, row, at] = [local(), local(), local(), local()];
  const [width, group] = [4 * dh, heads / keyValueHeads];
  const headBytes = 4 * dh * blockTokens;
  const valuesAt = keyValueHeads * headBytes;
  const chunks: Queries[] = [];
  for (let rest = group; rest > 0; rest -= chunks.at(-1)!) chunks.push(queriesAtATime(rest));
  const rowScores = multiplyIntegers(get(field.blocks), integer(4 * blockTokens));
  const rotate = (vector: number, scale: number) =>
    apply(
      'rotateRows',
      ...[get(vector), integer(width), get(field.cos), get(field.sin), get(vector), integer(width)],
      ...[integer(dh / 2), integer(1), number(1), number(scale)],
    );
  /** Goes along the blocks, and in each along the heads' chunks of queries: what lies together is read together. */
  const walk = (offset: number, step: (queries: Queries) => Code): Code => [
    ...set(place, get(field.table)),
    ...set(turn, get(field.blocks)),
    ...set(at, get(scores)),
    ...countDown(
      turn,
      1,
      set(mine, addIntegers(get(layer), integer(offset))),
      [...set(query, get(q)), ...set(row, get(at))],
      set(left, integer(keyValueHeads)),
      countDown(
        left,
        1,
        chunks.flatMap((queries) => [
          ...step(queries),
          ...advance(query, integer(queries * width)),
          ...advance(row, multiplyIntegers(rowScores, integer(queries))),
        ]),
        advance(mine, integer(headBytes)),
      ),
      advance(place, integer(4)),
      advance(at, integer(4 * blockTokens)),
    ),
  ];
  return builder.body(
    countDown(
      rows,
      1,
      tokenRowFields.flatMap((name, i) =>
        set(field[name], loadInteger(addIntegers(get(tokens), integer(4 * i)))),
      ),
      [...set(mine, addIntegers(get(field.block), get(layer))), ...set(query, get(q))],
      set(left, integer(keyValueHeads)),
      countDown(
        left,
        1,
        rotate(k, 1),
        apply('writeColumn', get(k), addIntegers(get(mine), times(field.slot, 4)), integer(dh)),
        apply(
          'copy',
          get(v),
          addIntegers(addIntegers(get(mine), integer(valuesAt)), times(field.slot, width)),
          integer(dh),
        ),
        range(group).flatMap(() => [...rotate(query, 1 / Math.sqrt(dh)), ...advance(query, integer(width))]),
        [...advance(k, integer(width)), ...advance(v, integer(width)), ...advance(mine, integer(headBytes))],
      ),
      walk(0, (queries) =>
        apply(`score${queries}`, get(query), get(place), integer(1), get(mine), get(row), rowScores),
      ),
      apply(
        'softmaxRows',
        ...[get(scores), integer(heads), times(field.blocks, blockTokens), get(field.visible), integer(0)],
      ),
      apply('fill', get(q), number(0), integer(heads * dh)),
      walk(valuesAt, (queries) =>
        apply(`mix${queries}`, get(row), rowScores, get(place), integer(1), get(mine), get(query)),
      ),
      advance(q, integer(heads * width)),
      advance(tokens, integer(4 * tokenRowNumbers)),
    ),
  );
}

/** `local` · `factor` */
const times = (local: number, factor: number): Code => multiplyIntegers(get(local), integer(factor));

/** Whether heads of this size can be walked along. */
export const fitsPaging = (dh: number): boolean => dh % 8 === 0;

/** What attention along blocks is made of, for heads of one shape. */
export interface Paging {
  readonly attendTokens: (...values: number[]) => void;
}

/** Compiles it for heads of a size that is a multiple of 8, over TF.js' memory. */
export function assemblePaging(memory: WasmMemory, shape: HeadShape): Paging {
  const dh = shape.headSize;
  const parts = {
    ...vectorModule,
    rotateRows: rotateRows(),
    score1: scoreBlocks(1, dh),
    score2: scoreBlocks(2, dh),
    score4: scoreBlocks(4, dh),
    mix1: mixBlocks(1, dh),
    mix2: mixBlocks(2, dh),
    mix4: mixBlocks(4, dh),
    writeColumn: writeColumn(),
  };
  const names = Object.keys(parts);
  const apply = (name: string, ...values: Code[]) => call(names.indexOf(name), ...values);
  const { attendTokens: attend } = assemble({ ...parts, attendTokens: attendTokens(shape, apply) }, memory);
  return { attendTokens: attend };
}

/** What has been compiled, by memory and heads: the policies of a run have heads of one shape. */
const compiled = new WeakMap<WasmMemory, Map<string, Paging>>();

/** As `assemblePaging`, once for each shape. */
export function pagingFor(memory: WasmMemory, shape: HeadShape): Paging {
  const { heads, keyValueHeads, headSize } = shape;
  const key = [heads, keyValueHeads, headSize].join();
  const known = compiled.get(memory) ?? new Map<string, Paging>();
  compiled.set(memory, known);
  const paging = known.get(key) ?? assemblePaging(memory, shape);
  known.set(key, paging);
  return paging;
}
