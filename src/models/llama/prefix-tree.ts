// Which prefixes of token ids have been read before: a radix tree whose edges are blocks of equally many tokens,
// so that sequences with the same beginning share what was computed for it. Pure; blocks.ts fills the blocks.

interface Node<Block> {
  readonly parent: Node<Block> | null;
  /** The token ids of its edge, joined. */
  readonly key: string;
  readonly block: Block;
  readonly children: Map<string, Node<Block>>;
}

/** A block that was made just now and holds nothing yet. */
export interface NewBlock<Block> {
  /** It stands for the tokens from `index · blockTokens` on. */
  readonly index: number;
  readonly block: Block;
}

/** A bounded memory of prefixes. What was used longest ago is forgotten first, ends before beginnings. */
export class PrefixTree<Block> {
  readonly blockTokens: number;
  readonly maxBlocks: number;
  readonly #roots = new Map<string, Node<Block>>();
  /** All nodes, the one used longest ago first. A node stands before its parent, so the first is a leaf. */
  readonly #byUse = new Set<Node<Block>>();

  constructor(blockTokens: number, maxBlocks: number) {
    this.blockTokens = blockTokens;
    this.maxBlocks = maxBlocks;
  }

  /** Blocks held. */
  get size(): number {
    return this.#byUse.size;
  }

  /** The blocks of the longest known prefix within the first `limit` ids. Counts as use. */
  find(ids: readonly number[], limit = ids.length): Block[] {
    const path = this.#walk(ids, limit);
    this.#touch(path);
    return path.map(({ block }) => block);
  }

  /** Makes a block for every whole block of `ids` that is not known yet; the caller fills them. */
  grow(ids: readonly number[], create: () => Block): NewBlock<Block>[] {
    const path = this.#walk(ids, ids.length);
    const made: NewBlock<Block>[] = [];
    for (let index = path.length; (index + 1) * this.blockTokens <= ids.length; index++) {
      const parent = path.at(-1) ?? null;
      const node = { parent, key: this.keyOf(ids, index), block: create(), children: new Map() };
      (parent?.children ?? this.#roots).set(node.key, node);
      path.push(node);
      made.push({ index, block: node.block });
    }
    this.#touch(path);
    while (this.#byUse.size > this.maxBlocks) this.#forgetOne();
    return made;
  }

  /** Names the ids of one block. */
  keyOf(ids: readonly number[], index: number): string {
    return ids.slice(index * this.blockTokens, (index + 1) * this.blockTokens).join(' ');
  }

  #walk(ids: readonly number[], limit: number): Node<Block>[] {
    const path: Node<Block>[] = [];
    let children = this.#roots;
    for (let index = 0; (index + 1) * this.blockTokens <= limit; index++) {
      const node = children.get(this.keyOf(ids, index));
      if (node === undefined) break;
      path.push(node);
      children = node.children;
    }
    return path;
  }

  #touch(path: readonly Node<Block>[]): void {
    for (const node of path.toReversed()) {
      this.#byUse.delete(node);
      this.#byUse.add(node);
    }
  }

  #forgetOne(): void {
    const [node] = this.#byUse as Iterable<Node<Block>> as [Node<Block>];
    this.#byUse.delete(node);
    (node.parent?.children ?? this.#roots).delete(node.key);
  }
}
