// The memory of a session: sequences that read on, with their keys and values in blocks. What one sequence has read, a
// later one with the same beginning shares. generate.ts and score.ts ask; a block decoder computes.
import { OptimaError } from '../../domain/errors.ts';
import { type BlockDecoder, blockTokens } from '../../tensor/index.ts';
import { type PrefixNode, PrefixTree } from './prefix-tree.ts';

/** Tokens that a session's calls had to read, by how. */
export interface PrefixStatistics {
  /** Tokens that went through the decoder. */
  readonly computed: number;
  /** Tokens whose keys and values were known. */
  readonly reused: number;
}

/** A sequence under way. Opened by `Memory.plan`; whoever called that closes it. */
export interface Sequence {
  /** Tokens that have been read. */
  readonly ids: readonly number[];
}

interface OpenSequence extends Sequence {
  readonly ids: number[];
  /** From position 0 on; the first ones are those of `path`, the others its own. */
  readonly blocks: number[];
  readonly path: PrefixNode[];
}

/** Tokens for a sequence to read next. */
export interface Unread {
  readonly sequence: Sequence;
  readonly ids: readonly number[];
}

/** Known prefixes under one set of weights. Changing the weights makes it worthless. */
export class Memory {
  /** Most blocks, those of open sequences included; 0: see the constructor. */
  readonly maxBlocks: number;
  readonly decoder: BlockDecoder;
  readonly #tree = new PrefixTree();
  readonly #open = new Set<OpenSequence>();
  #held = 0;
  #computed = 0;
  #reused = 0;

  /**
   * Keeps at most `maxBytes` of keys and values, and one block at least; open sequences may go beyond when they have to.
   * With 0 nothing is shared and nothing bounded.
   */
  constructor(decoder: BlockDecoder, maxBytes = 2 ** 28) {
    this.decoder = decoder;
    this.maxBlocks = maxBytes === 0 ? 0 : Math.max(1, Math.floor(maxBytes / decoder.blockBytes));
  }

  get statistics(): PrefixStatistics {
    return { computed: this.#computed, reused: this.#reused };
  }

  /** Blocks that a sequence of so many tokens fills. */
  blocksFor(tokens: number): number {
    return Math.ceil(tokens / blockTokens);
  }

  /**
   * Opens a sequence for every item, except for those to open later, because one before them reads a prefix that they
   * share. `limitOf` bounds what may be taken from memory, in tokens. What a sequence has read of its item's ids, it
   * need not read again.
   */
  plan<T>(
    items: readonly T[],
    idsOf: (item: T) => readonly number[],
    limitOf: (item: T) => number,
  ): { now: { item: T; sequence: Sequence }[]; later: T[] } {
    const claimed = new Set<string>();
    const now: { item: T; sequence: Sequence }[] = [];
    const later: T[] = [];
    for (const item of items) {
      const [ids, limit] = [idsOf(item), limitOf(item)];
      const path = this.maxBlocks > 0 ? this.#tree.find(ids, limit) : [];
      const next = (path.length + 1) * blockTokens;
      const claim = this.maxBlocks > 0 && next <= limit ? ids.slice(0, next).join(' ') : null;
      if (claim !== null && claimed.has(claim)) {
        later.push(item);
        continue;
      }
      if (claim !== null) claimed.add(claim);
      now.push({ item, sequence: this.#start(ids, path) });
    }
    return { now, later };
  }

  /** Reads tokens of different sequences in one pass; `decoder` then knows what comes after each of them. */
  read(unread: readonly Unread[]): void {
    const sequences = unread.map(({ sequence }) => sequence as OpenSequence);
    if (!sequences.every((sequence) => this.#open.has(sequence))) {
      throw new OptimaError('interrupted', 'The session was closed while it was read from.');
    }
    sequences.forEach(({ ids, blocks }, i) => {
      const needed = this.blocksFor(ids.length + unread[i]!.ids.length);
      while (blocks.length < needed) blocks.push(this.#allocate());
    });
    this.decoder.read(
      unread.map(({ ids }, i) => ({ ids, start: sequences[i]!.ids.length, blocks: sequences[i]!.blocks })),
    );
    sequences.forEach((sequence, i) => {
      const { ids } = unread[i]!;
      sequence.ids.push(...ids);
      this.#computed += ids.length;
      if (this.maxBlocks > 0) this.#share(sequence);
    });
  }

  /** Ends a sequence. Its whole blocks stay known as long as there is room. */
  close(sequence: Sequence): void {
    const { path, blocks } = sequence as OpenSequence;
    if (!this.#open.delete(sequence as OpenSequence)) return;
    this.#tree.release(path);
    for (const block of blocks.slice(path.length)) this.#free(block);
    while (this.#held > this.maxBlocks && this.#forgetOne());
  }

  /** Frees everything. */
  forget(): void {
    for (const sequence of [...this.#open]) this.close(sequence);
    while (this.#forgetOne());
  }

  #start(ids: readonly number[], path: PrefixNode[]): OpenSequence {
    this.#tree.hold(path);
    const known = path.length * blockTokens;
    const sequence = { ids: ids.slice(0, known), blocks: path.map(({ block }) => block), path };
    this.#reused += known;
    this.#open.add(sequence);
    return sequence;
  }

  /** Makes whole blocks known; where another sequence was first, its blocks take the place of the own ones. */
  #share({ ids, blocks, path }: OpenSequence): void {
    while ((path.length + 1) * blockTokens <= ids.length) {
      const index = path.length;
      const node = this.#tree.extend(path.at(-1) ?? null, ids, index, blocks[index]!);
      if (node.block !== blocks[index]) this.#free(blocks[index]!);
      blocks[index] = node.block;
      path.push(node);
    }
  }

  #allocate(): number {
    if (this.#held >= this.maxBlocks) this.#forgetOne();
    const block = this.decoder.allocate();
    this.#held++;
    return block;
  }

  #free(block: number): void {
    this.#held--;
    this.decoder.free(block);
  }

  #forgetOne(): boolean {
    const block = this.#tree.forgetOne();
    if (block === null) return false;
    this.#free(block);
    return true;
  }
}

/** Splits what is to be read into passes of at most `tokenBudget` tokens; a longer piece has a pass of its own. */
export function passesOf<T>(items: readonly T[], tokensOf: (item: T) => number, tokenBudget: number): T[][] {
  const passes: T[][] = [];
  let left = 0;
  for (const item of items) {
    const tokens = tokensOf(item);
    if (passes.length === 0 || tokens > left) {
      passes.push([]);
      left = tokenBudget;
    }
    passes.at(-1)!.push(item);
    left -= tokens;
  }
  return passes;
}
