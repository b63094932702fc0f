// The tree of a search: its nodes are turns, its root the task. It knows who is whose child and which roll-outs went where;
// what nodes are worth is for backup.ts to say.
import type { NodeId } from '../domain/ids.ts';

/** A turn as a search sees it. */
export interface PlacedTurn {
  readonly id: NodeId;
  readonly parent: NodeId;
  readonly text: string;
  /** Of its tokens under the policy that said it, nats per token. */
  readonly meanLogprob: number;
}

export interface SearchNode extends Omit<PlacedTurn, 'parent'> {
  /** Null for the root. */
  readonly parent: NodeId | null;
  /** In the order in which they were placed. */
  readonly children: readonly NodeId[];
  /** Turns from the root. */
  readonly depth: number;
  /** Turns of the longest branch below it. */
  readonly height: number;
  /** Roll-outs that have ended and went through it, failed ones included. */
  readonly visits: number;
  /** Rewards of the roll-outs that ended at it, by their numbers. */
  readonly ended: ReadonlyMap<number, number>;
}

type Growing = { -readonly [Key in keyof SearchNode]: SearchNode[Key] } & {
  children: NodeId[];
  ended: Map<number, number>;
};

/** A tree as it stands. */
export interface SearchTree {
  readonly root: NodeId;
  readonly nodes: ReadonlyMap<NodeId, SearchNode>;
  /** Null where no roll-out through the node has a reward. */
  valueOf(node: NodeId): number | null;
}

/** A tree that grows. */
export class GrowingTree {
  readonly root: NodeId;
  readonly nodes: ReadonlyMap<NodeId, SearchNode>;
  readonly #nodes = new Map<NodeId, Growing>();

  constructor(root: NodeId) {
    this.root = root;
    this.nodes = this.#nodes;
    this.#nodes.set(root, newNode({ id: root, text: '', meanLogprob: 0 }, null, 0));
  }

  /** Adds a turn below its parent; throws a RangeError where there is no such node, or the turn is there already. */
  add({ parent, ...turn }: PlacedTurn): void {
    const above = this.#nodes.get(parent);
    if (above === undefined) throw new RangeError(`Node ${turn.id} has no parent ${parent} in its tree.`);
    if (this.#nodes.has(turn.id)) throw new RangeError(`Node ${turn.id} is in its tree already.`);
    this.#nodes.set(turn.id, newNode(turn, parent, above.depth + 1));
    above.children.push(turn.id);
    let height = 1;
    for (const node of this.#upwardsFrom(parent)) node.height = Math.max(node.height, height++);
  }

  /** A roll-out ended at a node; without a reward it counts as a visit alone. */
  end(rollout: number, leaf: NodeId, reward: number | null): void {
    for (const node of this.#upwardsFrom(leaf)) node.visits++;
    if (reward !== null) this.#nodes.get(leaf)!.ended.set(rollout, reward);
  }

  *#upwardsFrom(start: NodeId): Generator<Growing> {
    let node = this.#nodes.get(start);
    if (node === undefined) throw new RangeError(`Node ${start} is not in its tree.`);
    for (; node !== undefined; node = node.parent === null ? undefined : this.#nodes.get(node.parent))
      yield node;
  }
}

function newNode(turn: Omit<PlacedTurn, 'parent'>, parent: NodeId | null, depth: number): Growing {
  return { ...turn, parent, children: [], depth, height: 0, visits: 0, ended: new Map() };
}
