// The environment: deals each role its private view, gives the floor, keeps the transcript and the protocol,
// and closes the dialogue. Code of the scenario that throws closes it as failed, with what was thrown.
import { freeze } from 'immer';
import { assertEvent, assign, emit, enqueueActions, setup } from 'xstate';
import { messageOf } from '../domain/errors.ts';
import type { DialogueId, TaskId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Outcome, Turn } from '../domain/transcript.ts';
import { type FormatPrompt, type Scenario, systemText } from '../scenario/types.ts';

export interface EnvironmentContext {
  readonly dialogueId: DialogueId;
  readonly taskId: TaskId;
  readonly scenario: Scenario;
  readonly task: unknown;
  readonly format: FormatPrompt | null;
  readonly views: Readonly<Record<string, string>>;
  readonly plainViews: Readonly<Record<string, string>>;
  readonly turns: readonly Turn[];
  /** Who has the floor; null before the first turn. */
  readonly speaker: string | null;
  /** Set once the dialogue is to be closed. */
  readonly outcome: Outcome | null;
  readonly failure: string | null;
}

/** `dialogue.open` is the command that starts it; the rest comes over the bus. */
export type EnvironmentEvent =
  | { readonly type: 'dialogue.open' }
  | MessageOf<'turn.taken'>
  | MessageOf<'turn.failed'>;

export interface EnvironmentInput {
  readonly dialogueId: DialogueId;
  readonly taskId: TaskId;
  readonly scenario: Scenario;
  readonly task: unknown;
  /** The format prompt drawn for this dialogue; null for the plain prompt. */
  readonly format: FormatPrompt | null;
}

/** The environment has no result: all it does, it says on the bus. */
export type EnvironmentOutput = undefined;

type EnvironmentEmitted =
  | MessageOf<'dialogue.opened'>
  | MessageOf<'turn.requested'>
  | MessageOf<'dialogue.closed'>;

type Ruling = Pick<EnvironmentContext, 'speaker' | 'outcome' | 'failure'>;

const failed = (failure: string): Ruling => ({ speaker: null, outcome: 'failed', failure });

/** Each role's system text. Throws what `sees` throws, and when it gives anything but a text. */
function dealViews({ scenario, task }: EnvironmentContext, format: FormatPrompt | null) {
  const deal = (role: string) => {
    const text: unknown = systemText(scenario, role, task, format);
    if (typeof text !== 'string') throw new TypeError(`role "${role}" sees ${typeof text}, not a text`);
    return [role, text] as const;
  };
  return Object.fromEntries(Object.keys(scenario.roles).map(deal));
}

/** Whether the dialogue goes on, and with whom; or how it ends. */
function rule({ protocol, answer, roles }: Scenario, turns: readonly Turn[]): Ruling {
  try {
    if (turns.length > 0 && protocol.agreed(turns, answer)) {
      return { speaker: null, outcome: 'agreed', failure: null };
    }
    if (turns.length >= protocol.maxTurns) return { speaker: null, outcome: 'turn-cap', failure: null };
    const speaker = protocol.next(turns);
    return Object.hasOwn(roles, speaker)
      ? { speaker, outcome: null, failure: null }
      : failed(`Protocol gave turn ${turns.length} to "${speaker}", which is not a role.`);
  } catch (error) {
    return failed(`Protocol failed at turn ${turns.length}: ${messageOf(error)}`);
  }
}

/** Emits `dialogue.opened`, then `turn.requested` before each turn, and at last `dialogue.closed`. */
export const environmentMachine = setup({
  types: {
    context: {} as EnvironmentContext,
    events: {} as EnvironmentEvent,
    input: {} as EnvironmentInput,
    output: undefined as EnvironmentOutput,
    emitted: {} as EnvironmentEmitted,
  },
  guards: {
    isOver: ({ context }) => context.outcome !== null,
    isExpected: ({ context, event }) => {
      assertEvent(event, 'turn.taken');
      return event.turn.index === context.turns.length && event.turn.speaker === context.speaker;
    },
  },
  actions: {
    dealViews: assign(({ context }) => {
      try {
        const plainViews = dealViews(context, null);
        const views = context.format === null ? plainViews : dealViews(context, context.format);
        return { views, plainViews, ...rule(context.scenario, []) };
      } catch (error) {
        return failed(`Dealing the views failed: ${messageOf(error)}`);
      }
    }),
    announceOpening: emit(({ context }) => ({
      type: 'dialogue.opened' as const,
      dialogueId: context.dialogueId,
      taskId: context.taskId,
      views: context.views,
      plainViews: context.plainViews,
      format: context.format?.name ?? null,
    })),
    giveFloor: enqueueActions(({ context: { dialogueId, turns, speaker }, enqueue }) => {
      if (speaker === null) return;
      enqueue.emit({ type: 'turn.requested' as const, dialogueId, index: turns.length, speaker });
    }),
    appendTurn: assign(({ context, event }) => {
      assertEvent(event, 'turn.taken');
      // Everybody reads this very turn: code of the scenario must not write to it.
      const turns = freeze([...context.turns, freeze(event.turn, true)]);
      return { turns, ...rule(context.scenario, turns) };
    }),
    recordFailedTurn: assign(({ event }) => {
      assertEvent(event, 'turn.failed');
      return failed(`Turn ${event.index} of ${event.speaker} failed: ${event.reason}`);
    }),
    recordStrayTurn: assign(({ context, event }) => {
      assertEvent(event, 'turn.taken');
      const { index, speaker } = event.turn;
      return failed(
        `Turn ${index} came from ${speaker}, but turn ${context.turns.length} was ${context.speaker}'s.`,
      );
    }),
    announceClosing: emit(({ context }) => ({
      type: 'dialogue.closed' as const,
      dialogueId: context.dialogueId,
      outcome: context.outcome!,
      failure: context.failure,
    })),
  },
}).createMachine({
  id: 'environment',
  options: { maxIterations: 100 },
  context: ({ input }) => ({
    ...input,
    views: {},
    plainViews: {},
    turns: [],
    speaker: null,
    outcome: null,
    failure: null,
  }),
  initial: 'opening',
  states: {
    opening: {
      on: {
        'dialogue.open': { target: 'awaitingTurn', actions: ['dealViews', 'announceOpening', 'giveFloor'] },
      },
    },
    awaitingTurn: {
      always: { guard: 'isOver', target: 'closed' },
      on: {
        'turn.taken': [
          { guard: 'isExpected', actions: ['appendTurn', 'giveFloor'] },
          { actions: 'recordStrayTurn' },
        ],
        'turn.failed': { actions: 'recordFailedTurn' },
      },
    },
    closed: { type: 'final', entry: 'announceClosing' },
  },
});
