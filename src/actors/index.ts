// Dialogues: machines provided with the world, and the log of what they say.
export { createBus, type MessageBus } from './bus.ts';
export { dialogueMachine, type Episode } from './dialogue.ts';
export { createGenerationPool, type GenerationPool } from './pool.ts';
export { createRecorder, Dialogues, foldDialogues, type Recorder } from './recorder.ts';
export {
  cohortsOf,
  type DialogueOptions,
  everyRole,
  runCohort,
  runDialogues,
  type Speaker,
} from './runtime.ts';
