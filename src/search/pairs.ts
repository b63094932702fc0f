// Preference pairs: siblings of which one is worth more than the other (docs/method.md §5). Pure.
import type { NodeId } from '../domain/ids.ts';
import type { SearchNode, SearchTree } from './tree.ts';

export interface PairConfig {
  /** All siblings with each other, or the best child of a node with the worst. */
  readonly from: 'all' | 'extremes';
  /** θ_filter: the better one's value must be above this. */
  readonly thetaFilter: number;
  /** θ_diff: and above the worse one's by more than this. */
  readonly thetaDiff: number;
}

/** Two answers to the same history. */
export interface Pair {
  readonly parent: NodeId;
  readonly chosen: NodeId;
  readonly rejected: NodeId;
  /** Of the chosen one. */
  readonly value: number;
  readonly gap: number;
}

/** Pairs that were none in the end, by the first reason that held. */
export interface DroppedPairs {
  /** The better one's value is θ_filter or less. */
  readonly belowFilter: number;
  /** The difference is θ_diff or less. */
  readonly gapTooSmall: number;
  /** The texts are the same. */
  readonly sameText: number;
  /** The better one may not be learnt from. */
  readonly notEligible: number;
}

/** The pairs of a tree, node by node; `mayChoose` says which turns may be learnt from. */
export function pairsOf(
  tree: SearchTree,
  { from, thetaFilter, thetaDiff }: PairConfig,
  mayChoose: (node: NodeId) => boolean = () => true,
): { readonly pairs: readonly Pair[]; readonly dropped: DroppedPairs } {
  const pairs: Pair[] = [];
  const dropped = { belowFilter: 0, gapTooSmall: 0, sameText: 0, notEligible: 0 };
  for (const parent of tree.nodes.values()) {
    // Best first; siblings of one value in the order in which they were placed.
    const children = parent.children
      .map((id) => ({ node: tree.nodes.get(id)!, value: tree.valueOf(id) }))
      .filter((child): child is Child => child.value !== null)
      .sort((one, other) => other.value - one.value);
    for (const [better, worse] of combine(children, from)) {
      const gap = better.value - worse.value;
      if (!(better.value > thetaFilter)) dropped.belowFilter++;
      else if (!(gap > thetaDiff)) dropped.gapTooSmall++;
      else if (better.node.text === worse.node.text) dropped.sameText++;
      else if (!mayChoose(better.node.id)) dropped.notEligible++;
      else {
        const [chosen, rejected] = [better.node.id, worse.node.id];
        pairs.push({ parent: parent.id, chosen, rejected, value: better.value, gap });
      }
    }
  }
  return { pairs, dropped };
}

interface Child {
  readonly node: SearchNode;
  readonly value: number;
}

function* combine(children: readonly Child[], from: PairConfig['from']): Generator<[Child, Child]> {
  if (from === 'extremes') {
    if (children.length > 1) yield [children[0]!, children.at(-1)!];
    return;
  }
  for (const [index, better] of children.entries()) {
    for (const worse of children.slice(index + 1)) yield [better, worse];
  }
}

export interface KeepConfig {
  /** In (0, 1]. */
  readonly share: number;
  readonly per: 'task' | 'iteration';
}

/**
 * Of each task's pairs, or of all, the share with the best values, rounded down but one at least where there is any; best
 * first, ties in the order given. The result has a list for each task.
 */
export function keepPairs(
  tasks: readonly (readonly Pair[])[],
  { share, per }: KeepConfig,
): readonly (readonly Pair[])[] {
  const best = (pairs: readonly Pair[]) =>
    pairs
      .toSorted((one, other) => other.value - one.value)
      .slice(0, Math.max(1, Math.floor(share * pairs.length)));
  if (per === 'task') return tasks.map(best);
  const kept = new Set(best(tasks.flat()));
  return tasks.map((pairs) =>
    pairs.filter((pair) => kept.has(pair)).sort((one, other) => other.value - one.value),
  );
}
