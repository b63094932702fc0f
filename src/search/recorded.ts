// A tree whose turns and roll-outs are known: what they make every node worth, whichever search held them.
import type { NodeId } from '../domain/ids.ts';
import { type Backup, backUp, backups } from './backup.ts';
import type { SearchConfig } from './config.ts';
import { GrowingTree, type PlacedTurn, type RolloutEnd, type SearchTree } from './tree.ts';

/**
 * Takes in turns and ends in the order in which a search was told them, and chooses nothing itself. So rewards, and how they are
 * backed up, may be others than those by which the search chose what to expand; then no node counts as expanded.
 */
export class RecordedTree {
  readonly #tree: GrowingTree;
  readonly #backup: Backup;

  constructor(root: NodeId, backup: SearchConfig['backup']) {
    this.#tree = new GrowingTree(root);
    this.#backup = backups[backup];
  }

  get tree(): SearchTree {
    return this.#tree;
  }

  /** Adds a turn; throws a RangeError where its parent is not there, or it is there already. */
  place(turn: PlacedTurn): void {
    this.#tree.add(turn);
  }

  /** Takes in where a roll-out ended, and what it was worth; throws a RangeError where no such node is. */
  tell(end: RolloutEnd): void {
    backUp(this.#tree, end, this.#backup);
  }
}
