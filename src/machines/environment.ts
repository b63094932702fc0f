// The environment: deals each role its private view, gives the floor, keeps the transcript and the protocol, says what the
// scenario's own environment answers, and closes the dialogue. It begins at any node of a tree. Code of the scenario that throws closes it as failed.
import { freeze } from 'immer';
import { assertEvent, assign, emit, enqueueActions, setup } from 'xstate';
import { messageOf } from '../domain/errors.ts';
import { childId, type DialogueId, type NodeId, type TaskId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Deal, Observation, Outcome, Turn } from '../domain/transcript.ts';
import { Course, type Floor } from '../scenario/course.ts';
import { type FormatPrompt, formattedRoles, type Scenario } from '../scenario/types.ts';

export interface EnvironmentInput {
  readonly dialogueId: DialogueId;
  /** Root of the tree that the dialogue is a part of. */
  readonly tree: NodeId;
  readonly taskId: TaskId;
  readonly scenario: Scenario;
  readonly task: unknown;
  /** The format prompt drawn for this dialogue; null for the plain prompt. */
  readonly format: FormatPrompt | null;
  /** What was said before, from the root to the node at which it opens; empty: it begins at the root. */
  readonly history: readonly Turn[];
  /** Branch at each of its turns after the first, whose id is the dialogue's own; 0 where none is given. */
  readonly branches: readonly number[];
  /** A turn of the tree by its node. */
  readonly recall: (node: NodeId) => Turn;
  /** What of the dialogue is the scenario's to say; by default the scenario says it. */
  readonly course?: Course | undefined;
}

export interface EnvironmentContext extends EnvironmentInput {
  readonly course: Course;
  /** Null until it is dealt. */
  readonly deal: Deal | null;
  /** From the root on. */
  readonly turns: readonly Turn[];
  /** What the environment said after the last turn and has not announced; null: nothing. */
  readonly given: readonly Observation[] | null;
  /** Who has the floor; null before the first turn. */
  readonly floor: Floor | null;
  /** Set once the dialogue is to be closed. */
  readonly outcome: Outcome | null;
  readonly failure: string | null;
  /** Whose model refused to speak, where that is the failure. */
  readonly refusedBy: string | null;
}

/** `dialogue.open` is the command that starts it; the rest comes over the bus. */
export type EnvironmentEvent =
  | { readonly type: 'dialogue.open' }
  | MessageOf<'turn.taken'>
  | MessageOf<'turn.merged'>
  | MessageOf<'turn.failed'>;

/** The environment has no result: all it does, it says on the bus. */
export type EnvironmentOutput = undefined;

type EnvironmentEmitted =
  | MessageOf<'task.dealt'>
  | MessageOf<'format.dealt'>
  | MessageOf<'dialogue.opened'>
  | MessageOf<'turn.requested'>
  | MessageOf<'observation.given'>
  | MessageOf<'dialogue.closed'>;

type Ruling = Pick<EnvironmentContext, 'floor' | 'outcome' | 'failure'>;

const failed = (failure: string): Ruling => ({ floor: null, outcome: 'failed', failure });

/** Whether the dialogue goes on, and with whom; or how it ends. */
function rule(course: Course, turns: readonly Turn[]): Ruling {
  try {
    const next = course.next(turns);
    return typeof next === 'string'
      ? { floor: null, outcome: next, failure: null }
      : { floor: next, outcome: null, failure: null };
  } catch (error) {
    return failed(messageOf(error));
  }
}

/** A turn that was taken, and what the environment says after it. */
function hear(
  course: Course,
  before: readonly Turn[],
  turn: Turn,
): Pick<EnvironmentContext, 'turns' | 'given'> & Ruling {
  try {
    const turns = freeze(course.take(before, turn), true);
    return { turns, given: turns.at(-1)!.observed ?? null, ...rule(course, turns) };
  } catch (error) {
    return { turns: freeze([...before, turn], true), given: null, ...failed(messageOf(error)) };
  }
}

/** As `hear`, of a turn that stands in the tree already, after which the environment must say what it said then. */
function hearAgain(
  course: Course,
  before: readonly Turn[],
  { observed, ...turn }: Turn,
): ReturnType<typeof hear> {
  const heard = hear(course, before, turn);
  if (heard.outcome === 'failed' || JSON.stringify(heard.given) === JSON.stringify(observed ?? null))
    return { ...heard, given: null };
  const [now, then] = [heard.given, observed ?? null].map((said) => JSON.stringify(said));
  return {
    ...heard,
    given: null,
    ...failed(
      `Environment said ${now} after turn ${turn.id}, and ${then} before: it must follow from task and turns.`,
    ),
  };
}

/** The node that the next turn is to become. */
function nextNode({ dialogueId, history, branches, turns }: EnvironmentContext): NodeId {
  const own = turns.length - history.length;
  return own === 0 ? dialogueId : childId(turns.at(-1)!.id, branches[own - 1] ?? 0);
}

/** The node that a turn was said for, and who said it. */
function spokenIn(event: EnvironmentEvent): { node: NodeId; speaker: string } {
  assertEvent(event, ['turn.taken', 'turn.merged']);
  return event.type === 'turn.taken'
    ? { node: event.turn.id, speaker: event.turn.speaker }
    : { node: event.nodeId, speaker: event.speaker };
}

/** Emits what it deals, `dialogue.opened`, `turn.requested` before each turn, `observation.given` where it answers one, and at last `dialogue.closed`. */
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
      const { node, speaker } = spokenIn(event);
      return node === nextNode(context) && speaker === context.floor?.speaker;
    },
  },
  actions: {
    deal: assign(({ context: { course, history } }) => {
      try {
        const deal = course.deal();
        const last = history.at(-1);
        const heard =
          last === undefined ? rule(course, history) : hearAgain(course, history.slice(0, -1), last);
        return { deal, ...heard, turns: history };
      } catch (error) {
        return failed(`Dealing the views failed: ${messageOf(error)}`);
      }
    }),
    announceDeal: enqueueActions(({ context: { taskId, deal, format, scenario }, enqueue }) => {
      if (deal === null) return;
      enqueue.emit({ type: 'task.dealt' as const, taskId, ...deal });
      if (format === null) return;
      const { name, prompt } = format;
      enqueue.emit({ type: 'format.dealt' as const, format: name, prompt, roles: formattedRoles(scenario) });
    }),
    announceOpening: emit(({ context: { dialogueId, taskId, tree, history, format } }) => ({
      type: 'dialogue.opened' as const,
      dialogueId,
      taskId,
      tree,
      parent: history.at(-1)?.id ?? null,
      format: format?.name ?? null,
    })),
    giveFloor: enqueueActions(({ context, enqueue }) => {
      const { floor } = context;
      if (floor === null) return;
      enqueue.emit({ type: 'turn.requested' as const, nodeId: nextNode(context), ...floor });
    }),
    appendTurn: assign(({ context: { course, turns, recall }, event }) => {
      assertEvent(event, ['turn.taken', 'turn.merged']);
      return event.type === 'turn.taken'
        ? hear(course, turns, event.turn)
        : hearAgain(course, turns, recall(event.into));
    }),
    announceObservation: enqueueActions(({ context: { dialogueId, turns, given }, enqueue }) => {
      if (given === null) return;
      const { id: nodeId } = turns.at(-1)!;
      enqueue.emit({ type: 'observation.given' as const, dialogueId, nodeId, observations: given });
    }),
    recordFailedTurn: assign(({ context, event }) => {
      assertEvent(event, 'turn.failed');
      const { speaker, reason } = event;
      return {
        ...failed(`Turn ${context.turns.length} of ${speaker} failed: ${reason}`),
        refusedBy: speaker,
      };
    }),
    refuseStrayTurn: ({ context, event }) => {
      const { node, speaker } = spokenIn(event);
      throw new Error(
        `Turn ${node} came from ${speaker}, but ${nextNode(context)} was ${context.floor?.speaker}'s.`,
      );
    },
    announceClosing: emit(({ context: { dialogueId, outcome, failure, refusedBy } }) => ({
      type: 'dialogue.closed' as const,
      dialogueId,
      outcome: outcome!,
      failure,
      ...(refusedBy !== null && { refusedBy }),
    })),
  },
}).createMachine({
  id: 'environment',
  options: { maxIterations: 100 },
  context: ({ input }) => ({
    ...input,
    course: input.course ?? new Course(input.scenario, input.task),
    deal: null,
    turns: input.history,
    given: null,
    floor: null,
    outcome: null,
    failure: null,
    refusedBy: null,
  }),
  initial: 'opening',
  states: {
    opening: {
      on: {
        'dialogue.open': {
          target: 'awaitingTurn',
          actions: ['deal', 'announceDeal', 'announceOpening', 'giveFloor'],
        },
      },
    },
    awaitingTurn: {
      always: { guard: 'isOver', target: 'closed' },
      on: {
        'turn.taken': [
          { guard: 'isExpected', actions: ['appendTurn', 'announceObservation', 'giveFloor'] },
          { actions: 'refuseStrayTurn' },
        ],
        'turn.merged': [
          { guard: 'isExpected', actions: ['appendTurn', 'announceObservation', 'giveFloor'] },
          { actions: 'refuseStrayTurn' },
        ],
        'turn.failed': { actions: 'recordFailedTurn' },
      },
    },
    closed: { type: 'final', entry: 'announceClosing' },
  },
});
