// The memory of a session: sequences that read on, with their keys and values in blocks. What one sequence has read, a
// later one with the same beginning shares. generate.ts and score.ts ask; a block decoder computes.
import { OptimaError } from '../../domain/errors.ts';
import { type BlockDecoder, blockTokens } from '../../tensor/index.ts';
import { type PartOfBlock, type PrefixNode, PrefixTree } from './prefix-tree.ts';

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
  /** What is known of its last block while that is not whole; its ids grow with the sequence. */
  tail: { readonly node: PrefixNode; readonly ids: number[] } | null;
}

/** So few tokens are read twice sooner than waited for: waiting costs a pass. */
const worthWaiting = 4;

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
      const shares = this.maxBlocks > 0;
      const path = shares ? this.#tree.find(ids, limit) : [];
      const part = shares ? this.#tree.findPart(path, ids, limit) : null;
      const known = path.length * blockTokens + (part?.tokens ?? 0);
      const next = Math.min((path.length + 1) * blockTokens, limit);
      const claim = shares && next - known >= worthWaiting ? ids.slice(0, next).join(' ') : null;
      if (claim !== null && claimed.has(claim)) {
        later.push(item);
        continue;
      }
      if (claim !== null) claimed.add(claim);
      now.push({ item, sequence: this.#start(ids, path, part) });
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

  /** Ends a sequence. Its blocks stay known as long as there is room. */
  close(sequence: Sequence): void {
    const { path, blocks, tail } = sequence as OpenSequence;
    if (!this.#open.delete(sequence as OpenSequence)) return;
    const isKept = tail !== null && !this.#tree.isRepeated(tail.node);
    if (isKept) this.#tree.release([tail.node]);
    else if (tail !== null) this.#tree.dropTail(tail.node);
    this.#tree.release(path);
    for (const block of blocks.slice(path.length + (isKept ? 1 : 0))) this.#free(block);
    while (this.#held > this.maxBlocks && this.#forgetOne());
  }

  /** Frees everything. */
  forget(): void {
    for (const sequence of [...this.#open]) this.close(sequence);
    while (this.#forgetOne());
  }

  #start(ids: readonly number[], path: PrefixNode[], part: PartOfBlock | null): OpenSequence {
    this.#tree.hold(path);
    const blocks = path.map(({ block }) => block);
    if (part !== null) blocks.push(this.#copy(part.node));
    const known = path.length * blockTokens + (part?.tokens ?? 0);
    const sequence = { ids: ids.slice(0, known), blocks, path, tail: null };
    this.#reused += known;
    this.#open.add(sequence);
    return sequence;
  }

  /** Makes blocks known; where another sequence was first, its whole blocks take the place of the own ones. */
  #share(sequence: OpenSequence): void {
    const { ids, blocks, path } = sequence;
    while ((path.length + 1) * blockTokens <= ids.length) {
      if (sequence.tail !== null) this.#tree.dropTail(sequence.tail.node);
      sequence.tail = null;
      const index = path.length;
      const node = this.#tree.extend(path.at(-1) ?? null, ids, index, blocks[index]!);
      if (node.block !== blocks[index]) this.#free(blocks[index]!);
      blocks[index] = node.block;
      path.push(node);
    }
    const start = path.length * blockTokens;
    if (start === ids.length) return;
    if (sequence.tail === null) {
      const own = ids.slice(start);
      sequence.tail = {
        node: this.#tree.addTail(path.at(-1) ?? null, own, blocks[path.length]!),
        ids: own,
      };
    } else sequence.tail.ids.push(...ids.slice(start + sequence.tail.ids.length));
  }

  /** A block that holds what a known one does. */
  #copy(known: PrefixNode): number {
    // It must not be what is forgotten to make room.
    this.#tree.hold([known]);
    const block = this.#allocate();
    this.decoder.copy(known.block, block);
    this.#tree.release([known]);
    return block;
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
