// From token sequences to padded arrays: which sequences share an optimizer step, which share a forward pass,
// and which of their positions count for the loss.
import type { TrainingSequence } from '../domain/model.ts';
import type { Rng } from '../domain/rng.ts';

/** Sequences of one forward pass, right-padded to the longest. */
export interface PaddedBatch {
  /** [rows, time], row-major; the last token of a sequence is only ever predicted, so it is not in here. */
  readonly inputIds: Int32Array;
  readonly rows: number;
  readonly time: number;
  /** [n] Flat positions (`row · time + column`) whose next token counts for the loss, ascending. */
  readonly positions: Int32Array;
  /** [n] The token that follows each of these positions. */
  readonly labels: Int32Array;
}

/** How many tokens of the sequences count for the loss. */
export function countLossTokens(sequences: readonly TrainingSequence[]): number {
  // The first token has nothing before it that could predict it.
  return sequences.reduce(
    (sum, { lossMask }) => sum + lossMask.reduce<number>((ones, mask, i) => ones + (i > 0 ? mask : 0), 0),
    0,
  );
}

/**
 * The sequence up to the last token that counts, and no longer than `maxTokens`: what follows cannot change
 * the loss. Null when no token is left that counts.
 */
export function trimSequence(sequence: TrainingSequence, maxTokens: number): TrainingSequence | null {
  const end = sequence.lossMask.slice(0, maxTokens).lastIndexOf(1) + 1;
  if (end < 2) return null;
  return { tokenIds: sequence.tokenIds.slice(0, end), lossMask: sequence.lossMask.slice(0, end) };
}

/**
 * Deals the items at random into batches of at most `batchSize`, as equal in size as can be: one epoch, each
 * item exactly once.
 */
export function shuffledBatches<T>(items: readonly T[], batchSize: number, rng: Rng): T[][] {
  return inEqualParts(rng.shuffle(items), batchSize);
}

/** Parts of at most `most` items, as equal in size as can be. */
function inEqualParts<T>(items: readonly T[], most: number): T[][] {
  const count = Math.ceil(items.length / most);
  const start = (part: number) => Math.floor((part * items.length) / count);
  return Array.from({ length: count }, (_, part) => items.slice(start(part), start(part + 1)));
}

/**
 * As `shuffledBatches`, but items of one group stay together as far as a batch has room for them: groups are shuffled, and
 * their items dealt one group after the other.
 */
export function groupedBatches<T>(
  items: readonly T[],
  groupOf: (item: T) => string,
  batchSize: number,
  rng: Rng,
): T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(groupOf(item));
    if (group === undefined) groups.set(groupOf(item), [item]);
    else group.push(item);
  }
  return inEqualParts(rng.shuffle([...groups.values()]).flat(), batchSize);
}

/** Several passes come in about a multiple of this, equal in size as can be, so that as many threads end together. */
const passMultiple = 4;

/**
 * Splits one batch into forward passes of at most `tokensPerPass` padded tokens (a longer sequence gets a
 * pass of its own). Sequences of like length share a pass, so little is computed on padding; gradients of the
 * passes are added, so the split changes memory and time but not the step.
 */
export function planPasses(
  batch: readonly TrainingSequence[],
  tokensPerPass: number,
): (readonly TrainingSequence[])[] {
  const lengthOf = ({ tokenIds }: TrainingSequence) => tokenIds.length;
  const longestFirst = batch.toSorted((a, b) => lengthOf(b) - lengthOf(a));
  const fill = (limit: number) => fillPasses(longestFirst, limit, lengthOf);
  const fewest = fill(tokensPerPass);
  return fewest.length <= 1 ? fewest : inEvenPasses(fill, tokensPerPass, passMultiple);
}

/**
 * Passes of the smallest size with which their number, rounded up to a multiple, is enough: `fill` makes passes up to a size,
 * of which the greatest is `limit`.
 */
export function inEvenPasses<Pass>(fill: (limit: number) => Pass[], limit: number, multiple: number): Pass[] {
  const count = Math.ceil(fill(limit).length / multiple) * multiple;
  let [low, high] = [0, limit];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (fill(middle).length <= count) high = middle;
    else low = middle;
  }
  return fill(high);
}

/** Fills one pass after the other up to the limit; each item is padded to the length of its pass's first, the longest. */
export function fillPasses<T>(
  longestFirst: readonly T[],
  tokensPerPass: number,
  lengthOf: (item: T) => number,
): T[][] {
  const passes: T[][] = [];
  for (const item of longestFirst) {
    const pass = passes.at(-1);
    if (pass !== undefined && (pass.length + 1) * lengthOf(pass[0]!) <= tokensPerPass) pass.push(item);
    else passes.push([item]);
  }
  return passes;
}

/**
 * Pads sequences to one array. Padding stands to the right, where causal attention keeps it from every real
 * token, so it needs no mask.
 */
export function padBatch(sequences: readonly TrainingSequence[], padId: number): PaddedBatch {
  const rows = sequences.length;
  const time = Math.max(...sequences.map(({ tokenIds }) => tokenIds.length)) - 1;
  const inputIds = new Int32Array(rows * time).fill(padId);
  const positions: number[] = [];
  const labels: number[] = [];
  sequences.forEach(({ tokenIds, lossMask }, row) => {
    inputIds.set(tokenIds.slice(0, -1), row * time);
    for (let column = 0; column + 1 < tokenIds.length; column++) {
      if (lossMask[column + 1] === 0) continue;
      positions.push(row * time + column);
      labels.push(tokenIds[column + 1]!);
    }
  });
  return { inputIds, rows, time, positions: Int32Array.from(positions), labels: Int32Array.from(labels) };
}
