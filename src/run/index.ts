// Runs from code: `import { holdDialogue, train, … } from 'optima-actors/run'` (docs/library.md).
// A project whose own `types` leave out Node's needs them for the declarations.
/// <reference types="node" preserve="true" />
export { type Clock, systemClock } from '../domain/clock.ts';
export type { RunEvent } from '../domain/events.ts';
export type { PolicyHash } from '../domain/ids.ts';
export type { TeamMetrics } from '../domain/metrics.ts';
export type {
  ChatMessage,
  Generation,
  GenerationRequest,
  GenerativeModel,
  LanguageModel,
  TrainablePolicy,
} from '../domain/model.ts';
export type { Progress } from '../domain/progress.ts';
export type { Trajectory, Turn, Verdict } from '../domain/transcript.ts';
export { type ScriptedModelOptions, scriptedModel } from '../models/scripted/index.ts';
export {
  type ComparedTurns,
  type Comparison,
  type DialogueFilter,
  type DialogueReading,
  type DialogueSummary,
  type ForkReading,
  type NodeReading,
  type PhaseSummary,
  RunReader,
  type Saying,
  type TreeReading,
  type TreeSummary,
  type TurnReading,
} from '../reading/index.ts';
export type { Evaluation } from '../rollouts/evaluate.ts';
export { type LoadedScenario, loadScenario } from '../scenario/load.ts';
export { type LoggedEvent, readEvents } from '../store/read-events.ts';
export { RunFolder } from '../store/run-folder.ts';
export {
  type ComputeOptions,
  type DialogueOptions,
  type EvaluateOptions,
  evaluate,
  holdDialogue,
  openModel,
  type ScenarioChoice,
  type Team,
  type Training,
  type TrainOptions,
  train,
} from './library.ts';
