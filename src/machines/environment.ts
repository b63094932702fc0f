// The environment: deals each role its private view, gives the floor, keeps the transcript and the protocol,
// and closes the dialogue. It begins at any node of a tree. Code of the scenario that throws closes it as failed.
import { freeze } from 'immer';
import { assertEvent, assign, emit, enqueueActions, setup } from 'xstate';
import { messageOf } from '../domain/errors.ts';
import { childId, type DialogueId, type NodeId, type TaskId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Outcome, Turn } from '../domain/transcript.ts';
import { parserOf } from '../scenario/stated.ts';
import { type AnswerParser, type FormatPrompt, formattedRoles, type Scenario } from '../scenario/types.ts';

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
}

export interface EnvironmentContext extends EnvironmentInput {
  /** Null until they are dealt. */
  readonly views: Readonly<Record<string, string>> | null;
  /** Reads what a message states. */
  readonly answer: AnswerParser;
  /** From the root on. */
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
  | MessageOf<'turn.merged'>
  | MessageOf<'turn.failed'>;

/** The environment has no result: all it does, it says on the bus. */
export type EnvironmentOutput = undefined;

type EnvironmentEmitted =
  | MessageOf<'task.dealt'>
  | MessageOf<'format.dealt'>
  | MessageOf<'dialogue.opened'>
  | MessageOf<'turn.requested'>
  | MessageOf<'dialogue.closed'>;

type Ruling = Pick<EnvironmentContext, 'speaker' | 'outcome' | 'failure'>;

const failed = (failure: string): Ruling => ({ speaker: null, outcome: 'failed', failure });

/** Each role's system text. Throws what `sees` throws, and when it gives anything but a text. */
function dealViews({ scenario, task }: EnvironmentInput) {
  const deal = (role: string) => {
    const text: unknown = scenario.roles[role]!.sees(task);
    if (typeof text !== 'string') throw new TypeError(`role "${role}" sees ${typeof text}, not a text`);
    return [role, text] as const;
  };
  return Object.fromEntries(Object.keys(scenario.roles).map(deal));
}

/** Whether the dialogue goes on, and with whom; or how it ends. */
function rule({ protocol, roles }: Scenario, answer: AnswerParser, turns: readonly Turn[]): Ruling {
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

/** Emits what it deals, `dialogue.opened`, `turn.requested` before each turn, and at last `dialogue.closed`. */
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
      return node === nextNode(context) && speaker === context.speaker;
    },
  },
  actions: {
    dealViews: assign(({ context }) => {
      try {
        const { scenario, task, history } = context;
        const views = dealViews(context);
        const answer = parserOf(scenario, task, () => Object.values(views));
        return { views, answer, ...rule(scenario, answer, history) };
      } catch (error) {
        return failed(`Dealing the views failed: ${messageOf(error)}`);
      }
    }),
    announceDeal: enqueueActions(({ context: { taskId, views, format, scenario }, enqueue }) => {
      if (views === null) return;
      enqueue.emit({ type: 'task.dealt' as const, taskId, views });
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
      const { speaker } = context;
      if (speaker === null) return;
      enqueue.emit({ type: 'turn.requested' as const, nodeId: nextNode(context), speaker });
    }),
    appendTurn: assign(({ context, event }) => {
      assertEvent(event, ['turn.taken', 'turn.merged']);
      // Everybody reads this very turn: code of the scenario must not write to it.
      const turn = freeze(event.type === 'turn.taken' ? event.turn : context.recall(event.into), true);
      const turns = freeze([...context.turns, turn]);
      return { turns, ...rule(context.scenario, context.answer, turns) };
    }),
    recordFailedTurn: assign(({ context, event }) => {
      assertEvent(event, 'turn.failed');
      return failed(`Turn ${context.turns.length} of ${event.speaker} failed: ${event.reason}`);
    }),
    recordStrayTurn: assign(({ context, event }) => {
      const { node, speaker } = spokenIn(event);
      return failed(`Turn ${node} came from ${speaker}, but ${nextNode(context)} was ${context.speaker}'s.`);
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
    views: null,
    answer: input.scenario.answer,
    turns: input.history,
    speaker: null,
    outcome: null,
    failure: null,
  }),
  initial: 'opening',
  states: {
    opening: {
      on: {
        'dialogue.open': {
          target: 'awaitingTurn',
          actions: ['dealViews', 'announceDeal', 'announceOpening', 'giveFloor'],
        },
      },
    },
    awaitingTurn: {
      always: { guard: 'isOver', target: 'closed' },
      on: {
        'turn.taken': [
          { guard: 'isExpected', actions: ['appendTurn', 'giveFloor'] },
          { actions: 'recordStrayTurn' },
        ],
        'turn.merged': [
          { guard: 'isExpected', actions: ['appendTurn', 'giveFloor'] },
          { actions: 'recordStrayTurn' },
        ],
        'turn.failed': { actions: 'recordFailedTurn' },
      },
    },
    closed: { type: 'final', entry: 'announceClosing' },
  },
});
