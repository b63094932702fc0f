// What a search is told: docs/method.md §5 has the rules. The numbers are the paper's, or the authors' code's.

export interface SearchConfig {
  /** Expansions of a task's tree; 8. */
  readonly expansions: number;
  /** Complete dialogues from each expanded node; 3. */
  readonly rolloutsPerExpansion: number;
  /** Least S (`distance.ts`) of a candidate to every node that was selected before; 0.25. */
  readonly minDistance: number;
  /** Siblings whose S is below this are one node; 0.1. */
  readonly mergeBelow: number;
  /** How many of the best candidates the draw is from; 10. PUCT takes the best one. */
  readonly candidates: number;
  /** Above 0, in the unit of the policy's score: 1 for values; nats per token for `entropy`. */
  readonly temperature: number;
  /** What makes a candidate good (`expansion.ts: policies`). */
  readonly policy: 'softmax' | 'puct' | 'entropy';
  /** c of PUCT, in the unit of values. */
  readonly exploration: number;
  /** What a node's value is (`backup.ts`). */
  readonly backup: 'mean-of-children' | 'mean-of-rollouts';
}
