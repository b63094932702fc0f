// Dialogues: machines provided with the world, and all that they say as one stream.
export { createBus, type MessageBus } from './bus.ts';
export {
  type Cast,
  type CohortOptions,
  everyRole,
  openSessions,
  runCohort,
  type Speaker,
} from './cohort.ts';
export { dialogueMachine, type Episode } from './dialogue.ts';
export {
  type Exploration,
  type ExplorerOptions,
  runExplorer,
  type ValueDialogues,
} from './explorer.ts';
export type { RecalledReply } from './judging.ts';
export { createGenerationPool, type GenerationPool } from './pool.ts';
