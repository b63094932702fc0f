// Monte-Carlo tree search over the turns of one task's conversation, as an object that is asked and told: it says where to
// roll out next, gives each turn its place, and hears what roll-outs came to. Pure; src/actors/explorer.ts holds dialogues.
import type { NodeId } from '../domain/ids.ts';
import type { Rng } from '../domain/rng.ts';
import { valuesOf } from './backup.ts';
import type { SearchConfig } from './config.ts';
import { distanceBelow } from './distance.ts';
import { Expander } from './expansion.ts';
import { GrowingTree, type PlacedTurn, type SearchTree } from './tree.ts';

export type { Backup, SearchConfig } from './config.ts';
export {
  type DroppedPairs,
  type KeepConfig,
  keepPairs,
  type Pair,
  type PairConfig,
  pairsOf,
} from './pairs.ts';
export type { PlacedTurn, SearchNode, SearchTree } from './tree.ts';

/** A node from which dialogues are to be held to their ends. */
export interface Expansion {
  /** From 0. */
  readonly index: number;
  readonly node: NodeId;
  /** Numbers of the roll-outs, counted through the search. */
  readonly rollouts: readonly number[];
}

export class Search {
  readonly #config: SearchConfig;
  readonly #rng: Rng;
  readonly #tree: GrowingTree;
  readonly #expander: Expander;
  readonly #open = new Set<number>();
  #asked = 0;
  #values: ReadonlyMap<NodeId, number> | null = null;

  /** `rng` draws what is expanded. */
  constructor(root: NodeId, config: SearchConfig, rng: Rng) {
    this.#config = config;
    this.#rng = rng;
    this.#tree = new GrowingTree(root);
    this.#expander = new Expander(config);
  }

  /** The tree as it stands now. */
  get tree(): SearchTree {
    const { root, nodes } = this.#tree;
    return { root, nodes, valueOf: (node) => this.#valueOf(node) };
  }

  /** What to expand next; null when all has been. Throws while roll-outs of the expansion before have not been told. */
  ask(): Expansion | null {
    const { expansions, rolloutsPerExpansion } = this.#config;
    if (this.#open.size > 0) throw new Error(`${this.#open.size} roll-outs have not been told yet.`);
    if (this.#asked === expansions) return null;
    const index = this.#asked++;
    const node = this.#expander.next(this.tree, this.#rng.split(`expansion-${index}`));
    const first = index * rolloutsPerExpansion;
    const rollouts = Array.from({ length: rolloutsPerExpansion }, (_, offset) => first + offset);
    for (const rollout of rollouts) this.#open.add(rollout);
    return { index, node, rollouts };
  }

  /**
   * Gives a turn its place below its parent: the nearest of its siblings, the earliest on a tie, if one is nearer than
   * `mergeBelow`; else it becomes a node of its own. Returns the node's id.
   */
  place(turn: PlacedTurn): NodeId {
    const siblings = this.#tree.nodes.get(turn.parent)?.children ?? [];
    let nearest: NodeId | null = null;
    let limit = this.#config.mergeBelow;
    for (const sibling of siblings) {
      const distance = distanceBelow(this.#tree.nodes.get(sibling)!.text, turn.text, limit);
      if (distance !== null) [nearest, limit] = [sibling, distance];
    }
    if (nearest !== null) return nearest;
    this.#tree.add(turn);
    return turn.id;
  }

  /** A roll-out has ended at a node; null: it failed, and says nothing of what its nodes are worth. */
  tell(rollout: number, leaf: NodeId, reward: number | null): void {
    if (!this.#open.delete(rollout)) throw new Error(`Roll-out ${rollout} is not under way.`);
    this.#tree.end(rollout, leaf, reward);
    this.#values = null;
  }

  #valueOf(node: NodeId): number | null {
    this.#values ??= valuesOf(this.#tree.nodes, this.#tree.root, this.#config.backup);
    return this.#values.get(node) ?? null;
  }
}
