// Monte-Carlo tree search over the turns of one task's dialogues (docs/method.md §5), as an object that is asked what to
// roll out and told what came of it. Pure: whoever asks holds the dialogues.
import { OptimaError } from '../domain/errors.ts';
import type { NodeId } from '../domain/ids.ts';
import type { Rng } from '../domain/rng.ts';
import { type Backup, backUp, backups } from './backup.ts';
import type { SearchConfig } from './config.ts';
import { distanceBelow } from './distance.ts';
import { Selector } from './expansion.ts';
import { GrowingTree, type PlacedTurn, type RolloutEnd, type SearchTree } from './tree.ts';

/** Dialogues to hold: all of them begin at the node. */
export interface Expansion {
  /** From 0. */
  readonly index: number;
  readonly node: NodeId;
  /** Their numbers, counted through the search from 0. */
  readonly rollouts: readonly number[];
}

/**
 * A search. What it grows follows from the configuration, the generator and the turns in the order in which they are placed;
 * the order in which the roll-outs of an expansion are told changes nothing. Throws a RangeError where it is told what does not
 * follow from what it asked.
 */
export class Search {
  readonly #config: SearchConfig;
  readonly #rng: Rng;
  readonly #tree: GrowingTree;
  readonly #selector: Selector;
  readonly #backup: Backup;
  #asked = 0;
  /** Where the roll-outs under way began. */
  #origin: NodeId;
  /** The numbers of those. */
  readonly #running = new Set<number>();

  constructor(root: NodeId, config: SearchConfig, rng: Rng) {
    this.#config = config;
    this.#rng = rng;
    this.#tree = new GrowingTree(root);
    this.#selector = new Selector(config);
    this.#backup = backups[config.backup];
    this.#origin = root;
  }

  get tree(): SearchTree {
    return this.#tree;
  }

  /** The next expansion, the first at the root; null when there are no more. Roll-outs of the one before must have been told. */
  ask(): Expansion | null {
    if (this.#running.size > 0) throw new RangeError(`Roll-outs ${[...this.#running]} have not been told.`);
    const { expansions, rolloutsPerExpansion: count } = this.#config;
    if (this.#asked === expansions) return null;
    const index = this.#asked++;
    this.#origin = this.#selector.next(this.#tree, this.#rng.split(`expansion-${index}`)).id;
    const rollouts = Array.from({ length: count }, (_, i) => index * count + i);
    for (const rollout of rollouts) this.#running.add(rollout);
    return { index, node: this.#origin, rollouts };
  }

  /**
   * Adds a turn of a roll-out and returns its id; or, where a sibling is nearer than `mergeBelow`, adds nothing and returns the
   * id of the nearest, of the earliest on a tie: there the roll-out goes on.
   */
  place(turn: PlacedTurn): NodeId {
    this.#checkUnderWay(turn.parent);
    if (!Number.isFinite(turn.meanLogprob))
      throw new RangeError(`Turn ${turn.id} has the mean log-probability ${turn.meanLogprob}.`);
    const twin = this.#twinOf(turn);
    if (twin !== null) return twin;
    this.#tree.add(turn);
    return turn.id;
  }

  /**
   * Takes in that a roll-out ended at a node, and where seats have rewards of their own, theirs. Null instead of a reward: it
   * failed, and counts as a visit without a value. Throws `reward.invalid` for a reward that is not finite.
   */
  tell(rollout: number, leaf: NodeId, reward: number | null, seats?: RolloutEnd['seats']): void {
    this.#checkUnderWay(leaf);
    if (!this.#running.has(rollout)) throw new RangeError(`Roll-out ${rollout} is not under way.`);
    if (reward !== null && !Number.isFinite(reward))
      throw new OptimaError('reward.invalid', `Roll-out ${rollout} has the reward ${reward}.`);
    this.#running.delete(rollout);
    backUp(this.#tree, { rollout, leaf, reward, ...(seats && { seats }) }, this.#backup);
  }

  #twinOf({ parent, text }: PlacedTurn): NodeId | null {
    let twin: NodeId | null = null;
    let limit = this.#config.mergeBelow;
    for (const sibling of this.#tree.at(parent).children) {
      const distance = distanceBelow(text, this.#tree.at(sibling).text, limit);
      if (distance === null) continue;
      twin = sibling;
      limit = distance;
    }
    return twin;
  }

  /** A roll-out under way may have come to this node. */
  #checkUnderWay(node: NodeId): void {
    const isBelow = this.#tree.upFrom(node).some(({ id }) => id === this.#origin);
    if (this.#running.size === 0 || !isBelow) throw new RangeError(`No roll-out is under way at ${node}.`);
  }
}
