// Back-propagation: what a node is worth, from the roll-outs that have ended below it (docs/method.md §5, §12).
import type { SearchConfig } from './config.ts';
import type { GrowingTree, RolloutEnd, SearchNode, SearchTree } from './tree.ts';

/**
 * The value of a node whose children have theirs, for the team or for a seat; null while no roll-out through it has a reward.
 * Sums run in the order of children and of roll-out numbers, so that a value does not depend, to the last bit, on which roll-out
 * ended first.
 */
export type Backup = (node: SearchNode, tree: SearchTree, seat?: string) => number | null;

/** What a node is worth to a seat; to the team where it has no value of its own. */
export const valueTo = (seat: string | undefined, { seats, value }: SearchNode): number | null =>
  (seat === undefined ? undefined : seats?.[seat]) ?? value;

const rewardTo = (seat: string | undefined, { seats, reward }: RolloutEnd): number | null =>
  (seat === undefined ? undefined : seats?.[seat]) ?? reward;

export const backups: Readonly<Record<SearchConfig['backup'], Backup>> = {
  /**
   * The mean of the children's values (the paper, Algorithm 4). What ended at the node itself counts as one child more, of the
   * mean reward.
   */
  'mean-of-children': (node, { nodes }, seat) => {
    const below = node.children.map((child) => valueTo(seat, nodes.get(child)!));
    const here = node.ends.filter(({ leaf }) => leaf === node.id);
    return meanOf([...below, meanOf(here.map((end) => rewardTo(seat, end)))]);
  },
  /** The mean reward of all roll-outs through the node (the authors' code). */
  'mean-of-rollouts': ({ ends }, _, seat) => meanOf(ends.map((end) => rewardTo(seat, end))),
};

/** Takes in where a roll-out ended: visits and values of its leaf and of all above it. */
export function backUp(tree: GrowingTree, end: RolloutEnd, backup: Backup): void {
  for (const node of tree.upFrom(end.leaf)) {
    node.ends = [...node.ends, end].sort((a, b) => a.rollout - b.rollout);
    node.visits++;
    node.value = backup(node, tree);
    const seats = Object.keys(end.seats ?? node.seats ?? {});
    if (seats.length > 0) {
      node.seats = Object.fromEntries(seats.map((seat) => [seat, backup(node, tree, seat)!]));
    }
  }
}

/** The mean of those that are not null; null where there is none. */
function meanOf(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}
