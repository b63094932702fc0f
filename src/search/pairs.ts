// Preference pairs of a searched tree: of two answers to the same history the better one and the worse one
// (docs/method.md §5, §12).
import type { NodeId } from '../domain/ids.ts';
import type { SearchNode, SearchTree } from './tree.ts';

export interface PairConfig {
  /** Every two children of a node, or only its best child against its worst. */
  readonly pairs: 'all' | 'extremes';
  /** θ_filter: the chosen turn's value is above this. */
  readonly thetaFilter: number;
  /** θ_diff ≥ 0: the difference of the two values is above this. */
  readonly thetaDiff: number;
  /** The share, in (0, 1], of the pairs to keep: of each task's or of all those of an iteration. */
  readonly keep: { readonly share: number; readonly per: 'task' | 'iteration' };
}

export interface Pair {
  /** The last node of the history. */
  readonly parent: NodeId;
  readonly chosen: NodeId;
  readonly rejected: NodeId;
  /** Of the chosen turn. */
  readonly value: number;
  /** How much the rejected turn's value is below it. */
  readonly gap: number;
}

/** Why two siblings are no pair; the first reason that holds counts. */
export interface DroppedPairs {
  readonly sameText: number;
  /** The better turn may not be chosen. */
  readonly notEligible: number;
  readonly belowFilter: number;
  readonly gapTooSmall: number;
}

/** Two siblings side by side, and why they are no pair; null: they are one. */
export interface ComparedPair extends Pair {
  readonly reason: keyof DroppedPairs | null;
}

/**
 * The siblings of a tree that are compared, node by node and child by child in the order in which they were placed. Children
 * without a value are not. Of equal children the earlier one is the better one. What a value counts for is for `worth` to say.
 */
export function* comparePairs(
  tree: SearchTree,
  { pairs: which, thetaFilter, thetaDiff }: Omit<PairConfig, 'keep'>,
  mayChoose: (node: NodeId) => boolean = () => true,
  worth: (value: number, node: NodeId) => number = (value) => value,
): Generator<ComparedPair> {
  for (const parent of tree.nodes.values()) {
    const children = parent.children.flatMap((id): Valued[] => {
      const { text, value } = tree.nodes.get(id)!;
      return value === null ? [] : [{ id, text, value: worth(value, id) }];
    });
    for (const [better, worse] of which === 'all' ? everyTwo(children) : extremes(children)) {
      const gap = better.value - worse.value;
      const reasonOf = (): ComparedPair['reason'] => {
        if (better.text === worse.text) return 'sameText';
        if (!mayChoose(better.id)) return 'notEligible';
        if (better.value <= thetaFilter) return 'belowFilter';
        return gap <= thetaDiff ? 'gapTooSmall' : null;
      };
      const reason = reasonOf();
      yield { parent: parent.id, chosen: better.id, rejected: worse.id, value: better.value, gap, reason };
    }
  }
}

/** The pairs of a tree, in the order in which they are compared, and how many others there are. */
export function pairsOf(...[tree, config, mayChoose, worth]: Parameters<typeof comparePairs>): {
  readonly pairs: readonly Pair[];
  readonly dropped: DroppedPairs;
} {
  const pairs: Pair[] = [];
  const dropped = { sameText: 0, notEligible: 0, belowFilter: 0, gapTooSmall: 0 };
  for (const { reason, ...pair } of comparePairs(tree, config, mayChoose, worth)) {
    if (reason === null) pairs.push(pair);
    else dropped[reason]++;
  }
  return { pairs, dropped };
}

type Valued = Pick<SearchNode, 'id' | 'text'> & { readonly value: number };

const everyTwo = (nodes: readonly Valued[]): [better: Valued, worse: Valued][] =>
  nodes.flatMap((one, index) =>
    nodes
      .slice(index + 1)
      .map((other): [Valued, Valued] => (other.value > one.value ? [other, one] : [one, other])),
  );

function extremes(nodes: readonly Valued[]): [best: Valued, worst: Valued][] {
  const bestFirst = nodes.toSorted((a, b) => b.value - a.value);
  return nodes.length < 2 ? [] : [[bestFirst[0]!, bestFirst.at(-1)!]];
}

/**
 * The best pairs by the value of the chosen turn, for each task in the order in which they came: ⌊n · share⌋ of the n pairs of
 * each task, or of all together, and one where that is none. Ties go to the earlier pair.
 */
export function keepPairs(
  perTask: readonly (readonly Pair[])[],
  { share, per }: PairConfig['keep'],
): readonly (readonly Pair[])[] {
  const kept = per === 'task' ? perTask.flatMap((pairs) => best(pairs, share)) : best(perTask.flat(), share);
  const isKept = new Set(kept);
  return perTask.map((pairs) => pairs.filter((pair) => isKept.has(pair)));
}

function best(pairs: readonly Pair[], share: number): readonly Pair[] {
  // So that 0.29 of 100 are 29, although the product is a little less.
  const count = Math.floor(pairs.length * share + 1e-9);
  return pairs.toSorted((a, b) => b.value - a.value).slice(0, Math.max(1, count));
}
