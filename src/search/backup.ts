// What nodes are worth, from the rewards of the roll-outs that went through them.
import type { NodeId } from '../domain/ids.ts';
import { mean } from '../domain/metrics.ts';
import type { Backup } from './config.ts';
import type { SearchNode } from './tree.ts';

/**
 * The value of every node through which a roll-out with a reward went. Sums are taken in the order of children and of
 * roll-outs' numbers, so the order in which rewards were told changes no bit.
 *
 * - `mean-of-children`: the mean of its children's values; roll-outs that ended at the node itself are together one child
 *   (docs/method.md §5).
 * - `mean-of-rollouts`: the mean of the rewards of all roll-outs through it.
 */
export function valuesOf(
  nodes: ReadonlyMap<NodeId, SearchNode>,
  root: NodeId,
  backup: Backup,
): ReadonlyMap<NodeId, number> {
  const values = new Map<NodeId, number>();
  /** Sets the values below and at a node; returns the rewards that went through it, by roll-out. */
  const visit = (id: NodeId): [number, number][] => {
    const { children, ended } = nodes.get(id)!;
    const through = [...ended, ...children.flatMap(visit)].sort(([one], [other]) => one - other);
    if (through.length === 0) return through;
    if (backup === 'mean-of-rollouts') values.set(id, mean(through.map(([, reward]) => reward)));
    else {
      const own = [...ended].sort(([one], [other]) => one - other).map(([, reward]) => reward);
      const below = children.flatMap((child) => values.get(child) ?? []);
      values.set(id, mean(own.length > 0 ? [mean(own), ...below] : below));
    }
    return through;
  };
  visit(root);
  return values;
}
