// The trainer: leads a run through its plan, one phase after the other. deciding → carryingOut → deciding … until no phase
// is left. src/run provides `carryOut` with the world.
import { assertEvent, assign, type DoneActorEvent, type ErrorActorEvent, setup } from 'xstate';
import { longestTimerMs } from '../domain/clock.ts';
import { OptimaError } from '../domain/errors.ts';
import type { PhaseOutput } from '../domain/events.ts';
import type { PlannedPhase } from './plan.ts';
import { unprovided } from './unprovided.ts';

/** What a phase is told. The data itself lies in the run's log and checkpoints. */
export interface PhaseInput {
  readonly phase: PlannedPhase;
}

export interface TrainerContext {
  readonly plan: readonly PlannedPhase[];
  /** Position in the plan of the phase under way. */
  readonly position: number;
  readonly phaseTimeoutMs: number;
  readonly error: unknown;
}

export type TrainerEvent = DoneActorEvent<PhaseOutput, 'carryOut'> | ErrorActorEvent<unknown, 'carryOut'>;

export interface TrainerInput {
  readonly plan: readonly PlannedPhase[];
  /** Longest time of one phase, in ms; below 2^31. Default 24 days. */
  readonly phaseTimeoutMs?: number;
}

/**
 * How the run ended. A phase that rejects with `OptimaError('interrupted')` ends it `interrupted`; any other
 * rejection ends it `failed`, with what was thrown in `error`.
 */
export interface TrainerOutput {
  readonly status: 'finished' | 'interrupted' | 'failed';
  readonly error: unknown;
}

const isInterruption = (error: unknown) => error instanceof OptimaError && error.code === 'interrupted';

/** The position of the first phase behind `position` that belongs to no iteration; the plan's end where there is none. */
function afterIterations({ plan, position }: TrainerContext): number {
  const next = plan.findIndex(({ iteration }, index) => index > position && iteration === null);
  return next === -1 ? plan.length : next;
}

/**
 * Provide the actor `carryOut`: it gets a phase and resolves with the phase's output, at once where the log says that the
 * phase was completed before. So a run resumes from its log alone. A selection, of dialogues or of pairs, that kept nothing ends the
 * iterations, unless there are pairs of forks to train on.
 */
export const trainerMachine = setup({
  types: {
    context: {} as TrainerContext,
    events: {} as TrainerEvent,
    input: {} as TrainerInput,
    output: {} as TrainerOutput,
  },
  actors: { carryOut: unprovided<PhaseOutput, PhaseInput>('carryOut') },
  guards: {
    isPhaseLeft: ({ context }) => context.position < context.plan.length,
    keptNothing: ({ event }) => {
      assertEvent(event, 'xstate.done.actor.carryOut');
      const { output } = event;
      if (output.kind === 'pair') return output.kept === 0 && (output.forks ?? 0) === 0;
      return output.kind === 'select' && output.kept === 0;
    },
    wasInterrupted: ({ event }) => {
      assertEvent(event, 'xstate.error.actor.carryOut');
      return isInterruption(event.error);
    },
  },
  delays: { phaseTimeout: ({ context }) => context.phaseTimeoutMs },
  actions: {
    advance: assign({ position: ({ context }) => context.position + 1 }),
    leaveIterations: assign({ position: ({ context }) => afterIterations(context) }),
    recordError: assign(({ event }) => {
      assertEvent(event, 'xstate.error.actor.carryOut');
      return { error: event.error };
    }),
    recordTimeout: assign({
      error: ({ context: { plan, position, phaseTimeoutMs } }) =>
        new OptimaError('timeout', `Phase ${plan[position]!.name} took more than ${phaseTimeoutMs} ms.`, {
          hint: 'Resume the run: it continues at this phase.',
        }),
    }),
  },
}).createMachine({
  id: 'trainer',
  options: { maxIterations: 100 },
  context: ({ input }) => ({ phaseTimeoutMs: longestTimerMs, ...input, position: 0, error: null }),
  initial: 'deciding',
  states: {
    deciding: {
      always: [{ guard: 'isPhaseLeft', target: 'carryingOut' }, { target: 'finished' }],
    },
    carryingOut: {
      invoke: {
        id: 'carryOut',
        src: 'carryOut',
        input: ({ context }) => ({ phase: context.plan[context.position]! }),
        onDone: [
          { guard: 'keptNothing', target: 'deciding', actions: 'leaveIterations' },
          { target: 'deciding', actions: 'advance' },
        ],
        onError: [
          { guard: 'wasInterrupted', target: 'interrupted', actions: 'recordError' },
          { target: 'failed', actions: 'recordError' },
        ],
      },
      after: { phaseTimeout: { target: 'failed', actions: 'recordTimeout' } },
    },
    finished: { type: 'final' },
    failed: { type: 'final' },
    interrupted: { type: 'final' },
  },
  output: ({ context: { error } }) => ({
    status: error === null ? 'finished' : isInterruption(error) ? 'interrupted' : 'failed',
    error,
  }),
});
