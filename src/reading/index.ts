// Reading a run: what its log says, for commands, the viewer and exports.
export type { ComparedTurns, Comparison, NoPair } from './comparison.ts';
export { nearestWords } from './nearest.ts';
export { type DialogueFilter, type DialogueReading, type ForkReading, RunReader } from './run-reader.ts';
export type { Saying } from './said.ts';
export type { DialogueSummary, PhaseSummary, TreeSummary } from './summaries.ts';
export type { MergedTurn, NodeReading, TreeReading, TurnReading, Worth } from './tree-reading.ts';
