// Groups sequences of similar length, so that right-padded batches waste little. Used by tensor-decoder.ts.
import { tf } from '../../tensor/index.ts';

/** No sequence of a group is longer than this many times its shortest and a few tokens, for which no pass pays. */
const maxLengthRatio = 1.25;
const slackTokens = 16;

/** Splits items into groups, shortest first; items of one length keep their order. */
export function groupByLength<T>(items: readonly T[], lengthOf: (item: T) => number): T[][] {
  const groups: T[][] = [];
  let group: T[] = [];
  for (const item of items.toSorted((a, b) => lengthOf(a) - lengthOf(b))) {
    const length = lengthOf(item);
    if (group.length === 0 || length > maxLengthRatio * lengthOf(group[0]!) + slackTokens) {
      group = [];
      groups.push(group);
    }
    group.push(item);
  }
  return groups;
}

/** Token ids of several sequences, right-padded with id 0: int32 [sequences, longest]. */
export function padSequences(sequences: readonly (readonly number[])[]): tf.Tensor2D {
  const longest = Math.max(...sequences.map((sequence) => sequence.length));
  const ids = new Int32Array(sequences.length * longest);
  sequences.forEach((sequence, row) => {
    ids.set(sequence, row * longest);
  });
  return tf.tensor2d(ids, [sequences.length, longest], 'int32');
}
