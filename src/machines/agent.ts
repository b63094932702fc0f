// An agent: one role's side of one dialogue. It hears the bus, and speaks when the floor is its own:
// turn.requested → `speak` (provided by src/actors with a model) → turn.taken.
import { assertEvent, assign, type DoneActorEvent, type ErrorActorEvent, emit, setup } from 'xstate';
import { messageOf } from '../domain/errors.ts';
import { type DialogueId, type PolicyHash, type TurnId, turnId } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { ChatMessage, Generation } from '../domain/model.ts';
import { type Provenance, type Turn, viewOf } from '../domain/transcript.ts';
import { unprovided } from './unprovided.ts';

/** What the agent asks of the world: its next message. */
export interface SpeakInput {
  readonly id: TurnId;
  readonly dialogueId: DialogueId;
  readonly index: number;
  readonly role: string;
  /** The conversation as this role sees it. */
  readonly messages: readonly ChatMessage[];
}

/** A generation, and where it came from. */
export interface Utterance extends Generation {
  readonly policyHash: PolicyHash;
  readonly seed: number;
  readonly provenance: Provenance;
}

export interface AgentContext {
  readonly role: string;
  readonly dialogueId: DialogueId;
  readonly turnTimeoutMs: number;
  /** What the environment dealt this role; empty until the dialogue opens. */
  readonly systemText: string;
  readonly turns: readonly Turn[];
}

export type AgentEvent =
  | MessageOf<'dialogue.opened'>
  | MessageOf<'turn.requested'>
  | MessageOf<'turn.taken'>
  | MessageOf<'dialogue.closed'>
  | DoneActorEvent<Utterance, 'speak'>
  | ErrorActorEvent<unknown, 'speak'>;

export interface AgentInput {
  readonly role: string;
  readonly dialogueId: DialogueId;
  /** Longest time one turn may take, in ms; below 2^31. */
  readonly turnTimeoutMs: number;
}

/** An agent has no result: all it does, it says on the bus. */
export type AgentOutput = undefined;

type AgentEmitted = MessageOf<'turn.taken'> | MessageOf<'turn.failed'>;

const speakInput = ({ context }: { context: AgentContext }): SpeakInput => ({
  id: turnId(context.dialogueId, context.turns.length),
  dialogueId: context.dialogueId,
  index: context.turns.length,
  role: context.role,
  messages: viewOf(context.role, context.systemText, context.turns),
});

function turnTaken(context: AgentContext, utterance: Utterance): MessageOf<'turn.taken'> {
  const { role, dialogueId, turns } = context;
  const { text, tokenIds, logprobs, finish, policyHash, seed, provenance, promptTokens } = utterance;
  const turn = {
    id: turnId(dialogueId, turns.length),
    parent: turns.at(-1)?.id ?? null,
    index: turns.length,
    speaker: role,
    text,
    tokenIds,
    logprobs,
    finish,
    policyHash,
    seed,
    provenance,
    promptTokens,
  };
  return { type: 'turn.taken', dialogueId, turn };
}

const turnFailed = (context: AgentContext, reason: string): MessageOf<'turn.failed'> => ({
  type: 'turn.failed',
  dialogueId: context.dialogueId,
  index: context.turns.length,
  speaker: context.role,
  reason,
});

/** Emits `turn.taken` or `turn.failed` for every `turn.requested` of its role, and nothing else. */
export const agentMachine = setup({
  types: {
    context: {} as AgentContext,
    events: {} as AgentEvent,
    input: {} as AgentInput,
    output: undefined as AgentOutput,
    emitted: {} as AgentEmitted,
  },
  actors: { speak: unprovided<Utterance, SpeakInput>('speak') },
  guards: {
    hasFloor: ({ context, event }) => {
      assertEvent(event, 'turn.requested');
      return event.speaker === context.role;
    },
  },
  delays: { turnTimeout: ({ context }) => context.turnTimeoutMs },
  actions: {
    takeView: assign(({ context, event }) => {
      assertEvent(event, 'dialogue.opened');
      return { systemText: event.views[context.role] ?? '' };
    }),
    hearTurn: assign(({ context, event }) => {
      assertEvent(event, 'turn.taken');
      return { turns: [...context.turns, event.turn] };
    }),
    announceTurn: emit(({ context, event }) => {
      assertEvent(event, 'xstate.done.actor.speak');
      return turnTaken(context, event.output);
    }),
    announceFailure: emit(({ context, event }) => {
      assertEvent(event, 'xstate.error.actor.speak');
      return turnFailed(context, messageOf(event.error));
    }),
    announceTimeout: emit(({ context }) =>
      turnFailed(context, `No message within ${context.turnTimeoutMs} ms.`),
    ),
  },
}).createMachine({
  id: 'agent',
  options: { maxIterations: 100 },
  context: ({ input }) => ({ ...input, systemText: '', turns: [] }),
  initial: 'listening',
  on: {
    'dialogue.opened': { actions: 'takeView' },
    'turn.taken': { actions: 'hearTurn' },
    'dialogue.closed': { target: '.dismissed' },
  },
  states: {
    listening: {
      on: { 'turn.requested': { guard: 'hasFloor', target: 'composing' } },
    },
    composing: {
      invoke: {
        id: 'speak',
        src: 'speak',
        input: speakInput,
        onDone: { target: 'listening', actions: 'announceTurn' },
        onError: { target: 'failing', actions: 'announceFailure' },
      },
      after: { turnTimeout: { target: 'failing', actions: 'announceTimeout' } },
    },
    failing: {},
    dismissed: { type: 'final' },
  },
});
