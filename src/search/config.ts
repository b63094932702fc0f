// How a tree is searched. Defaults are the recipe's (src/recipe/presets.ts); docs/method.md §5 has the paper's.

export interface SearchConfig {
  /** Nodes that are expanded, one after the other. */
  readonly expansions: number;
  /** Dialogues that are held from an expanded node to their ends. */
  readonly rolloutsPerExpansion: number;
  /** A node nearer than this to one that was expanded is not expanded. */
  readonly minDistance: number;
  /** Siblings nearer than this are one node. */
  readonly mergeBelow: number;
  /** The best nodes from which the next to expand is chosen. */
  readonly candidates: number;
  /** Of the softmax that draws it. */
  readonly temperature: number;
  readonly policy: 'softmax' | 'puct' | 'entropy';
  /** c of PUCT. */
  readonly exploration: number;
  readonly backup: Backup;
}

/** What a node's value is the mean of. */
export type Backup = 'mean-of-children' | 'mean-of-rollouts';
