// Tree search over the turns of one task's dialogues, and the preference pairs of what it has grown.
export { valueTo } from './backup.ts';
export type { SearchConfig } from './config.ts';
export {
  type ComparedPair,
  comparePairs,
  type DroppedPairs,
  keepPairs,
  type Pair,
  type PairConfig,
  pairsOf,
} from './pairs.ts';
export { RecordedTree } from './recorded.ts';
export { type Expansion, Search } from './search.ts';
export type { PlacedTurn, RolloutEnd, SearchNode, SearchTree } from './tree.ts';
