// Which prefixes of token ids have been read: a radix tree whose edges are blocks of equally many tokens, so that
// sequences with the same beginning share its blocks, with tails of fewer tokens at its ends. Pure; memory.ts owns the blocks.
import { blockTokens } from '../../tensor/index.ts';

/** A block of a known prefix. */
export interface PrefixNode {
  readonly parent: PrefixNode | null;
  /** The token ids of its edge; those of a tail may still grow. */
  readonly ids: readonly number[];
  /** Its ids, joined; null of a tail. */
  readonly key: string | null;
  readonly block: number;
  readonly children: Map<string, PrefixNode>;
  readonly tails: Set<PrefixNode>;
  /** Sequences that stand on it or behind it. */
  users: number;
}

/** The first tokens of a block. */
export interface PartOfBlock {
  readonly node: PrefixNode;
  /** How many, 1 or more. */
  readonly tokens: number;
}

const idsOf = (ids: readonly number[], index: number): number[] =>
  ids.slice(index * blockTokens, (index + 1) * blockTokens);

/** Names the ids of one block. */
const keyOf = (ids: readonly number[], index: number): string => idsOf(ids, index).join(' ');

/** How many of the ids from `start` on, and before `end`, are the first ones of a block. */
function commonTokens(block: readonly number[], ids: readonly number[], start: number, end: number): number {
  const most = Math.min(block.length, end - start);
  let count = 0;
  while (count < most && block[count] === ids[start + count]) count++;
  return count;
}

/** Known prefixes, and who uses them. */
export class PrefixTree {
  readonly #roots = { children: new Map<string, PrefixNode>(), tails: new Set<PrefixNode>() };
  /** Nodes without users, the one used longest ago first. A node stands before its parent: the first is a leaf. */
  readonly #idle = new Set<PrefixNode>();

  /** The nodes of the longest known prefix of whole blocks within the first `limit` ids. */
  find(ids: readonly number[], limit: number): PrefixNode[] {
    const path: PrefixNode[] = [];
    let { children } = this.#roots;
    for (let index = 0; (index + 1) * blockTokens <= limit; index++) {
      const node = children.get(keyOf(ids, index));
      if (node === undefined) break;
      path.push(node);
      children = node.children;
    }
    return path;
  }

  /** What is known of the ids behind a path, within the first `limit`: the beginning of another one's block; null: nothing. */
  findPart(path: readonly PrefixNode[], ids: readonly number[], limit: number): PartOfBlock | null {
    const { children, tails } = this.#behind(path.at(-1) ?? null);
    const start = path.length * blockTokens;
    let longest: PartOfBlock | null = null;
    for (const nodes of [tails, children.values()]) {
      for (const node of nodes) {
        const tokens = commonTokens(node.ids, ids, start, limit);
        if (tokens > (longest?.tokens ?? 0)) longest = { node, tokens };
      }
    }
    return longest;
  }

  /** Takes a path into use. */
  hold(path: readonly PrefixNode[]): void {
    for (const node of path) {
      node.users++;
      this.#idle.delete(node);
    }
  }

  /** Ends a use of a path. */
  release(path: readonly PrefixNode[]): void {
    for (const node of path.toReversed()) if (--node.users === 0) this.#idle.add(node);
  }

  /**
   * Adds the node of block `index` of `ids` behind `parent`, in use once; where there is one, takes that into use and
   * leaves `block` alone.
   */
  extend(parent: PrefixNode | null, ids: readonly number[], index: number, block: number): PrefixNode {
    const { children } = this.#behind(parent);
    const key = keyOf(ids, index);
    const known = children.get(key);
    if (known !== undefined) {
      this.hold([known]);
      return known;
    }
    const node = newNode({ parent, ids: idsOf(ids, index), key, block });
    children.set(key, node);
    return node;
  }

  /** Adds a block of fewer tokens behind `parent`, in use once. Whoever reads on adds to `ids`, and drops it when the block is whole. */
  addTail(parent: PrefixNode | null, ids: readonly number[], block: number): PrefixNode {
    const node = newNode({ parent, ids, key: null, block });
    this.#behind(parent).tails.add(node);
    return node;
  }

  /** Takes out a tail, whose block is its user's again. */
  dropTail(tail: PrefixNode): void {
    this.#behind(tail.parent).tails.delete(tail);
    this.#idle.delete(tail);
  }

  /** Whether another block behind the same node begins with the ids of a tail. */
  isRepeated(tail: PrefixNode): boolean {
    const { children, tails } = this.#behind(tail.parent);
    const repeats = ({ ids }: PrefixNode) => tail.ids.every((id, i) => ids[i] === id);
    return [...tails, ...children.values()].some((node) => node !== tail && repeats(node));
  }

  /** Forgets the node that was used longest ago and returns its block; null when all are in use. */
  forgetOne(): number | null {
    for (const node of this.#idle) {
      this.#idle.delete(node);
      const { children, tails } = this.#behind(node.parent);
      if (node.key === null) tails.delete(node);
      else children.delete(node.key);
      return node.block;
    }
    return null;
  }

  /** What follows a node; null: what sequences begin with. */
  #behind(node: PrefixNode | null): Pick<PrefixNode, 'children' | 'tails'> {
    return node ?? this.#roots;
  }
}

const newNode = (node: Pick<PrefixNode, 'parent' | 'ids' | 'key' | 'block'>): PrefixNode => ({
  ...node,
  children: new Map(),
  tails: new Set(),
  users: 1,
});
