// The statecharts: pure, started by src/actors and src/run, which provide their actors with the world.
export {
  type AgentContext,
  type AgentEvent,
  type AgentInput,
  agentMachine,
  type ComposeAnswer,
  type Utterance,
} from './agent.ts';
export { type EnvironmentEvent, type EnvironmentInput, environmentMachine } from './environment.ts';
export { type ExplorerOutput, explorerMachine, type Rollout, type ValuedRollout } from './explorer.ts';
export {
  computeVerdict,
  type JudgeContext,
  type JudgeEvent,
  type JudgeInput,
  judgeMachine,
  type ScoreAnswer,
} from './judge.ts';
export type { PlannedPhase, PlannedPhases } from './plan.ts';
export {
  type PhaseInput,
  type TrainerInput,
  type TrainerOutput,
  trainerMachine,
} from './trainer.ts';
