// Sequences that begin alike as one tree of tokens, so that what they share is computed once.
import type { TrainingSequence } from '../domain/model.ts';
import type { TreeLayout } from '../tensor/index.ts';

/** Sequences in one row. */
export interface PackedSequences {
  /** [t] Every token that something follows, once for all sequences that have it in common with what is before it. */
  readonly inputIds: Int32Array;
  readonly layout: TreeLayout;
  /** [n] Tokens of the row after which a token that counts is predicted; no two with one label are the same. */
  readonly positions: Int32Array;
  /** [n] The token that follows there. */
  readonly labels: Int32Array;
  /** For each sequence, in the order given, which of the n are its own. */
  readonly terms: readonly (readonly number[])[];
}

/** Packs sequences; each must have two tokens or more. */
export function packSequences(sequences: readonly TrainingSequence[]): PackedSequences {
  const order = sequences
    .map((_, index) => index)
    .sort((one, other) => compareIds(sequences[one]!.tokenIds, sequences[other]!.tokenIds));
  const inputIds: number[] = [];
  const depths: number[] = [];
  const segments: number[] = [];
  const terms: number[][] = sequences.map(() => []);
  const columns = new Map<string, number>();
  const [positions, labels]: [number[], number[]] = [[], []];
  /** Of the sequence before, whose beginning the next one shares: where each token stands, and in which segment. */
  let path: { readonly at: number; readonly segment: number }[] = [];
  let before: readonly number[] = [];
  for (const index of order) {
    const { tokenIds, lossMask } = sequences[index]!;
    // The last token is only ever predicted.
    const read = tokenIds.slice(0, -1);
    const shared = Math.min(commonPrefix(before, read), path.length);
    path = path.slice(0, shared);
    if (read.length > shared) {
      const from = inputIds.length;
      const [parent, at] = shared === 0 ? [-1, 0] : [path[shared - 1]!.segment, path[shared - 1]!.at];
      const used = parent < 0 ? 0 : at + 1 - segments[4 * parent]!;
      const segment = segments.length / 4;
      segments.push(from, from + read.length - shared, parent, used);
      for (let depth = shared; depth < read.length; depth++) {
        path.push({ at: inputIds.length, segment });
        inputIds.push(read[depth]!);
        depths.push(depth);
      }
    }
    before = read;
    for (let place = 1; place < tokenIds.length; place++) {
      if (lossMask[place] === 0) continue;
      const { at } = path[place - 1]!;
      const key = `${at} ${tokenIds[place]}`;
      const column = columns.get(key) ?? positions.length;
      if (column === positions.length) {
        columns.set(key, column);
        positions.push(at);
        labels.push(tokenIds[place]!);
      }
      terms[index]!.push(column);
    }
  }
  return {
    inputIds: Int32Array.from(inputIds),
    layout: { segments, positions: Int32Array.from(depths) },
    positions: Int32Array.from(positions),
    labels: Int32Array.from(labels),
    terms,
  };
}

/** How many ids two lists have in common at their beginnings. */
export function commonPrefix(one: readonly number[], other: readonly number[]): number {
  let length = 0;
  while (length < one.length && length < other.length && one[length] === other[length]) length++;
  return length;
}

/** As words in a dictionary: what begins alike stands together. */
export function compareIds(one: readonly number[], other: readonly number[]): number {
  const shared = commonPrefix(one, other);
  return (one[shared] ?? -1) - (other[shared] ?? -1);
}
