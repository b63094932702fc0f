// The statecharts: pure, started by src/actors and src/run, which provide their actors with the world.
export {
  type AgentContext,
  type AgentEvent,
  type AgentInput,
  agentMachine,
  type ComposeAnswer,
  type Utterance,
} from './agent.ts';
export { type EnvironmentInput, environmentMachine } from './environment.ts';
export {
  computeVerdict,
  type JudgeContext,
  type JudgeEvent,
  type JudgeInput,
  judgeMachine,
  type ScoreAnswer,
} from './judge.ts';
export {
  type CompletedPhase,
  type EvaluateOutput,
  type GenerateOutput,
  type IterationPlan,
  type PhaseInput,
  type PhaseName,
  type PhaseOutputs,
  phaseNames,
  type RankOutput,
  type SelectOutput,
  type TrainerInput,
  type TrainerOutput,
  type TrainOutput,
  trainerMachine,
} from './trainer.ts';
