// The tree of a search: turns as nodes, the roll-outs that came through them, and what they are worth.
import type { NodeId } from '../domain/ids.ts';

/** A turn that a roll-out took. */
export interface PlacedTurn {
  readonly id: NodeId;
  readonly parent: NodeId;
  readonly text: string;
  /** Mean log-probability of its tokens when it was sampled, in nats per token. */
  readonly meanLogprob: number;
}

/** Where a roll-out ended. */
export interface RolloutEnd {
  /** Its number in the search. */
  readonly rollout: number;
  readonly leaf: NodeId;
  /** Null: it failed. */
  readonly reward: number | null;
  /** The reward of each role, where seats have rewards of their own. */
  readonly seats?: Readonly<Record<string, number>> | undefined;
}

/** The root, which is the task, or a turn. */
export interface SearchNode extends Omit<PlacedTurn, 'parent'> {
  /** Null for the root, whose text is empty and whose `meanLogprob` is 0. */
  readonly parent: NodeId | null;
  /** In the order in which they were placed. */
  readonly children: readonly NodeId[];
  /** Turns from the root to here. */
  readonly depth: number;
  /** Turns of the longest branch below. */
  readonly height: number;
  /** The roll-outs that came through here and have ended, by number. */
  readonly ends: readonly RolloutEnd[];
  /** How many these are, the failed ones included. */
  readonly visits: number;
  /** Null while none of them has a reward. */
  readonly value: number | null;
  /** What the node is worth to each role, where seats have rewards of their own. */
  readonly seats?: Readonly<Record<string, number>>;
  /** Whether roll-outs have begun here. */
  readonly expanded: boolean;
  /** Whether it was a candidate and too near to a node selected before. */
  readonly isFiltered: boolean;
}

/** What a search has grown so far; it goes on changing with it. */
export interface SearchTree {
  readonly root: SearchNode;
  /** The root, then the turns in the order in which they were placed: parents before their children. */
  readonly nodes: ReadonlyMap<NodeId, SearchNode>;
}

/** A node as the search itself sees it. */
export type GrowingNode = { -readonly [Key in keyof SearchNode]: SearchNode[Key] };

export class GrowingTree implements SearchTree {
  readonly root: GrowingNode;
  readonly nodes = new Map<NodeId, GrowingNode>();

  constructor(root: NodeId) {
    this.root = newNode({ id: root, parent: null, text: '', meanLogprob: 0, depth: 0 });
    this.nodes.set(root, this.root);
  }

  /** The node of that id; throws a RangeError where there is none. */
  at(id: NodeId): GrowingNode {
    const node = this.nodes.get(id);
    if (node === undefined) throw new RangeError(`The tree has no node ${id}.`);
    return node;
  }

  /** Adds a turn as the last child of its parent. Throws a RangeError if it is there already, or its parent is not. */
  add({ id, parent: parentId, text, meanLogprob }: PlacedTurn): void {
    if (this.nodes.has(id)) throw new RangeError(`The tree has a node ${id} already.`);
    const parent = this.at(parentId);
    this.nodes.set(id, newNode({ id, parent: parentId, text, meanLogprob, depth: parent.depth + 1 }));
    parent.children = [...parent.children, id];
    for (const [below, node] of this.upFrom(parentId).entries())
      node.height = Math.max(node.height, below + 1);
  }

  /** A node and all above it, up to the root. */
  upFrom(id: NodeId): GrowingNode[] {
    const path = [this.at(id)];
    for (let { parent } = path[0]!; parent !== null; { parent } = path.at(-1)!) path.push(this.at(parent));
    return path;
  }
}

const newNode = (
  node: Pick<SearchNode, 'id' | 'parent' | 'text' | 'meanLogprob' | 'depth'>,
): GrowingNode => ({
  ...node,
  children: [],
  height: 0,
  ends: [],
  visits: 0,
  value: null,
  expanded: false,
  isFiltered: false,
});
