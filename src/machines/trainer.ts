// The trainer: one run's iterations as a statechart. generating → ranking → selecting → training →
// validating → deciding, until no iteration is left or one selects nothing. src/run provides the five phases with the world.
import { assertEvent, assign, type DoneActorEvent, type ErrorActorEvent, setup } from 'xstate';
import { OptimaError } from '../domain/errors.ts';
import type { PolicyHash } from '../domain/ids.ts';
import { unprovided } from './unprovided.ts';

export const phaseNames = ['generate', 'rank', 'select', 'train', 'evaluate'] as const;
export type PhaseName = (typeof phaseNames)[number];

/** One planned iteration. `init` draws format prompts, `isft` does not (docs/method.md §3, §4). */
export interface IterationPlan {
  readonly index: number;
  readonly kind: 'init' | 'isft';
}

/** What every phase is told. The data itself lies in the run's log and checkpoints. */
export interface PhaseInput {
  readonly iteration: IterationPlan;
}

export interface GenerateOutput {
  /** Dialogues of the iteration, failed ones included. */
  readonly dialogues: number;
  readonly failed: number;
}

export interface RankOutput {
  /** Trajectories with a reward. */
  readonly ranked: number;
  /** Trajectories without one: failed dialogues, verdicts and rewards. */
  readonly failed: number;
  /** Over the ranked trajectories. */
  readonly meanReward: number;
}

export interface SelectOutput {
  /** Trajectories chosen for training; with none the run ends with the policy that it has. */
  readonly kept: number;
  /** Lowest reward among them; null when there are none. */
  readonly threshold: number | null;
}

export interface TrainOutput {
  readonly steps: number;
  /** Mean loss of the last epoch, nats per token. */
  readonly loss: number;
  /** The policy that came out. */
  readonly policy: PolicyHash;
}

export interface EvaluateOutput {
  readonly tasks: number;
  /** Mean task score, in [0, 1]. */
  readonly taskScore: number;
  /** Mean message tokens per dialogue. */
  readonly tokens: number;
}

export interface PhaseOutputs {
  readonly generate: GenerateOutput;
  readonly rank: RankOutput;
  readonly select: SelectOutput;
  readonly train: TrainOutput;
  readonly evaluate: EvaluateOutput;
}

/** A phase that has been carried out; a run logs it and hands it back on resume. */
export type CompletedPhase = {
  [P in PhaseName]: { readonly iteration: number; readonly phase: P; readonly output: PhaseOutputs[P] };
}[PhaseName];

export interface TrainerContext {
  readonly iterations: readonly IterationPlan[];
  /** Position in `iterations` of the one under way. */
  readonly position: number;
  readonly validate: boolean;
  readonly phaseTimeoutMs: number;
  readonly completed: readonly CompletedPhase[];
  readonly error: unknown;
}

export type TrainerEvent =
  | { [P in PhaseName]: DoneActorEvent<PhaseOutputs[P], P> }[PhaseName]
  | ErrorActorEvent<unknown, PhaseName>;

export interface TrainerInput {
  readonly iterations: readonly IterationPlan[];
  /** What earlier processes of this run completed, in order; these phases are not run again. */
  readonly completed: readonly CompletedPhase[];
  /** Whether each iteration ends with `evaluate`. */
  readonly validate: boolean;
  /** Longest time of one phase, in ms; below 2^31. Default 24 hours. */
  readonly phaseTimeoutMs?: number;
}

/**
 * How the run ended. A phase that rejects with `OptimaError('interrupted')` ends it `interrupted`; any other
 * rejection ends it `failed`, with what was thrown in `error`.
 */
export interface TrainerOutput {
  readonly status: 'finished' | 'interrupted' | 'failed';
  /** Every completed phase, those of earlier processes first. */
  readonly completed: readonly CompletedPhase[];
  readonly error: unknown;
}

const phaseInput = ({ context }: { context: TrainerContext }): PhaseInput => ({
  iteration: context.iterations[context.position]!,
});

const onPhaseError = [
  { guard: 'wasInterrupted', target: 'interrupted', actions: 'recordError' },
  { target: 'failed', actions: 'recordError' },
] as const;

const afterPhaseTimeout = { phaseTimeout: { target: 'failed', actions: 'recordTimeout' } } as const;

/** The first phase of an iteration that has not been carried out, or null when all have. */
function pendingPhase(
  iteration: IterationPlan | undefined,
  { completed, validate }: Pick<TrainerContext, 'completed' | 'validate'>,
): PhaseName | null {
  const isPending = (phase: PhaseName) =>
    !completed.some((done) => done.iteration === iteration?.index && done.phase === phase);
  const planned = validate ? phaseNames : phaseNames.filter((phase) => phase !== 'evaluate');
  return iteration === undefined ? null : (planned.find(isPending) ?? null);
}

const isInterruption = (error: unknown) => error instanceof OptimaError && error.code === 'interrupted';

function outputOf({ context }: { context: TrainerContext }): TrainerOutput {
  const { completed, error } = context;
  const status = error === null ? 'finished' : isInterruption(error) ? 'interrupted' : 'failed';
  return { status, completed, error };
}

/**
 * Runs the planned iterations one phase after the other. Provide the actors `generate`, `rank`, `select`,
 * `train` and `evaluate`; each gets `PhaseInput` and resolves with small, serialisable counts and hashes.
 */
export const trainerMachine = setup({
  types: {
    context: {} as TrainerContext,
    events: {} as TrainerEvent,
    input: {} as TrainerInput,
    output: {} as TrainerOutput,
  },
  actors: {
    generate: unprovided<GenerateOutput, PhaseInput>('generate'),
    rank: unprovided<RankOutput, PhaseInput>('rank'),
    select: unprovided<SelectOutput, PhaseInput>('select'),
    train: unprovided<TrainOutput, PhaseInput>('train'),
    evaluate: unprovided<EvaluateOutput, PhaseInput>('evaluate'),
  },
  guards: {
    resumesAt: ({ context }, params: { phase: PhaseName }) =>
      pendingPhase(context.iterations[context.position], context) === params.phase,
    validates: ({ context }) => context.validate,
    keptNothing: ({ event }) => {
      assertEvent(event, 'xstate.done.actor.select');
      return event.output.kept === 0;
    },
    hasNextIteration: ({ context }) => context.position + 1 < context.iterations.length,
    wasInterrupted: ({ event }) => {
      assertEvent(event, 'xstate.error.actor.*');
      return isInterruption(event.error);
    },
  },
  delays: { phaseTimeout: ({ context }) => context.phaseTimeoutMs },
  actions: {
    recordPhase: assign(({ context, event }) => {
      assertEvent(event, 'xstate.done.actor.*');
      const iteration = context.iterations[context.position]!.index;
      const phase = { iteration, phase: event.actorId, output: event.output } as CompletedPhase;
      return { completed: [...context.completed, phase] };
    }),
    startNextIteration: assign({ position: ({ context }) => context.position + 1 }),
    recordError: assign(({ event }) => {
      assertEvent(event, 'xstate.error.actor.*');
      return { error: event.error };
    }),
    recordTimeout: assign({
      error: ({ context }) => {
        const iteration = context.iterations[context.position]!;
        const phase = pendingPhase(iteration, context);
        return new OptimaError(
          'timeout',
          `Iteration ${iteration.index}: phase ${phase} took more than ${context.phaseTimeoutMs} ms.`,
          { hint: 'Resume the run: it continues at this phase.' },
        );
      },
    }),
  },
}).createMachine({
  id: 'trainer',
  options: { maxIterations: 100 },
  context: ({ input }) => {
    const endedEarly = input.completed.some((done) => done.phase === 'select' && done.output.kept === 0);
    const position = endedEarly
      ? -1
      : input.iterations.findIndex((iteration) => pendingPhase(iteration, input) !== null);
    return {
      phaseTimeoutMs: 86_400_000,
      ...input,
      position: position === -1 ? input.iterations.length : position,
      error: null,
    };
  },
  initial: 'resuming',
  states: {
    resuming: {
      always: [
        { guard: { type: 'resumesAt', params: { phase: 'generate' } }, target: 'generating' },
        { guard: { type: 'resumesAt', params: { phase: 'rank' } }, target: 'ranking' },
        { guard: { type: 'resumesAt', params: { phase: 'select' } }, target: 'selecting' },
        { guard: { type: 'resumesAt', params: { phase: 'train' } }, target: 'training' },
        { guard: { type: 'resumesAt', params: { phase: 'evaluate' } }, target: 'validating' },
        { target: 'finished' },
      ],
    },
    generating: {
      invoke: {
        id: 'generate',
        src: 'generate',
        input: phaseInput,
        onDone: { target: 'ranking', actions: 'recordPhase' },
        onError: onPhaseError,
      },
      after: afterPhaseTimeout,
    },
    ranking: {
      invoke: {
        id: 'rank',
        src: 'rank',
        input: phaseInput,
        onDone: { target: 'selecting', actions: 'recordPhase' },
        onError: onPhaseError,
      },
      after: afterPhaseTimeout,
    },
    selecting: {
      invoke: {
        id: 'select',
        src: 'select',
        input: phaseInput,
        onDone: [
          { guard: 'keptNothing', target: 'finished', actions: 'recordPhase' },
          { target: 'training', actions: 'recordPhase' },
        ],
        onError: onPhaseError,
      },
      after: afterPhaseTimeout,
    },
    training: {
      invoke: {
        id: 'train',
        src: 'train',
        input: phaseInput,
        onDone: [
          { guard: 'validates', target: 'validating', actions: 'recordPhase' },
          { target: 'deciding', actions: 'recordPhase' },
        ],
        onError: onPhaseError,
      },
      after: afterPhaseTimeout,
    },
    validating: {
      invoke: {
        id: 'evaluate',
        src: 'evaluate',
        input: phaseInput,
        onDone: { target: 'deciding', actions: 'recordPhase' },
        onError: onPhaseError,
      },
      after: afterPhaseTimeout,
    },
    deciding: {
      always: [
        { guard: 'hasNextIteration', target: 'generating', actions: 'startNextIteration' },
        { target: 'finished' },
      ],
    },
    finished: { type: 'final' },
    failed: { type: 'final' },
    interrupted: { type: 'final' },
  },
  output: outputOf,
});
