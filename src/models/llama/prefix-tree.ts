// Which prefixes of token ids have been read: a radix tree whose edges are blocks of equally many tokens, so that
// sequences with the same beginning share its blocks. Pure; memory.ts owns the blocks.
import { blockTokens } from '../../tensor/index.ts';

/** A block of a known prefix. */
export interface PrefixNode {
  readonly parent: PrefixNode | null;
  /** The token ids of its edge, joined. */
  readonly key: string;
  readonly block: number;
  readonly children: Map<string, PrefixNode>;
  /** Sequences that stand on it or behind it. */
  users: number;
}

/** Names the ids of one block. */
const keyOf = (ids: readonly number[], index: number): string =>
  ids.slice(index * blockTokens, (index + 1) * blockTokens).join(' ');

/** Known prefixes, and who uses them. */
export class PrefixTree {
  readonly #roots = new Map<string, PrefixNode>();
  /** Nodes without users, the one used longest ago first. A node stands before its parent: the first is a leaf. */
  readonly #idle = new Set<PrefixNode>();

  /** The nodes of the longest known prefix within the first `limit` ids. */
  find(ids: readonly number[], limit: number): PrefixNode[] {
    const path: PrefixNode[] = [];
    let children = this.#roots;
    for (let index = 0; (index + 1) * blockTokens <= limit; index++) {
      const node = children.get(keyOf(ids, index));
      if (node === undefined) break;
      path.push(node);
      children = node.children;
    }
    return path;
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
    const children = parent?.children ?? this.#roots;
    const key = keyOf(ids, index);
    const known = children.get(key);
    if (known !== undefined) {
      this.hold([known]);
      return known;
    }
    const node: PrefixNode = { parent, key, block, children: new Map(), users: 1 };
    children.set(key, node);
    return node;
  }

  /** Forgets the node that was used longest ago and returns its block; null when all are in use. */
  forgetOne(): number | null {
    for (const node of this.#idle) {
      this.#idle.delete(node);
      (node.parent?.children ?? this.#roots).delete(node.key);
      return node.block;
    }
    return null;
  }
}
