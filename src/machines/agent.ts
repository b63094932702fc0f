// An agent: one role's side of one dialogue. When the floor is its own it asks the world (src/actors, with a model) to
// compose a message, and says what comes back: turn.requested → compose → message.composed → turn.taken.
import { assertEvent, emit, setup } from 'xstate';
import type { DialogueId, NodeId, PolicyHash } from '../domain/ids.ts';
import type { MessageOf } from '../domain/messages.ts';
import type { Generation } from '../domain/model.ts';
import type { Provenance, Turn } from '../domain/transcript.ts';
import { unprovidedAction } from './unprovided.ts';

/** A generation, and where it came from. */
export interface Utterance extends Generation {
  readonly policyHash: PolicyHash;
  readonly seed: number;
  readonly provenance: Provenance;
}

/** The world's answer to `compose`, one of them each time, within a time that it sees to itself. */
export type ComposeAnswer =
  | {
      readonly type: 'message.composed';
      readonly nodeId: NodeId;
      readonly parent: NodeId;
      readonly utterance: Utterance;
      /** What of it is heard, by whom, and beside which others. */
      readonly manner: Pick<Turn, 'text' | 'written' | 'name' | 'to' | 'round'>;
    }
  | {
      readonly type: 'message.merged';
      readonly nodeId: NodeId;
      /** The turn that stands there already. */
      readonly into: NodeId;
      readonly utterance: Utterance;
    }
  | { readonly type: 'message.failed'; readonly nodeId: NodeId; readonly reason: string };

export interface AgentContext {
  readonly role: string;
  readonly dialogueId: DialogueId;
}

export type AgentEvent = MessageOf<'turn.requested'> | ComposeAnswer;

export type AgentInput = AgentContext;

/** An agent has no result: all it does, it says on the bus. */
export type AgentOutput = undefined;

type AgentEmitted = MessageOf<'turn.taken'> | MessageOf<'turn.merged'> | MessageOf<'turn.failed'>;

/** Emits `turn.taken`, `turn.merged` or `turn.failed` for every `turn.requested` of its role until one has failed, and nothing else. */
export const agentMachine = setup({
  types: {
    context: {} as AgentContext,
    events: {} as AgentEvent,
    input: {} as AgentInput,
    output: undefined as AgentOutput,
    emitted: {} as AgentEmitted,
  },
  guards: {
    hasFloor: ({ context, event }) => {
      assertEvent(event, 'turn.requested');
      return event.speaker === context.role;
    },
  },
  actions: {
    /** Provided with the world, which sends a `ComposeAnswer`. */
    compose: unprovidedAction('compose'),
    announceTurn: emit(({ context: { role: speaker, dialogueId }, event }) => {
      assertEvent(event, 'message.composed');
      const { nodeId: id, parent, utterance, manner } = event;
      const { tokenIds, logprobs, finish, policyHash, seed, provenance, promptTokens } = utterance;
      const { text, ...rest } = manner;
      const said = { text, tokenIds, logprobs, finish, policyHash, seed, provenance, promptTokens, ...rest };
      return { type: 'turn.taken' as const, dialogueId, turn: { id, parent, speaker, ...said } };
    }),
    announceMerge: emit(({ context: { role: speaker, dialogueId }, event }) => {
      assertEvent(event, 'message.merged');
      const { nodeId, into, utterance } = event;
      const { text, tokenIds, promptTokens } = utterance;
      return {
        type: 'turn.merged' as const,
        dialogueId,
        nodeId,
        speaker,
        into,
        text,
        tokenIds,
        promptTokens,
      };
    }),
    announceFailure: emit(({ context: { role: speaker, dialogueId }, event }) => {
      assertEvent(event, 'message.failed');
      const { nodeId, reason } = event;
      return { type: 'turn.failed' as const, dialogueId, nodeId, speaker, reason };
    }),
  },
}).createMachine({
  id: 'agent',
  options: { maxIterations: 100 },
  context: ({ input }) => input,
  initial: 'present',
  states: {
    // Listening and composing are one state: entering and leaving states twice a turn would cost a seventh of a
    // dialogue. Who composes is in the environment's context, and the world answers every `compose` once.
    present: {
      on: {
        'turn.requested': { guard: 'hasFloor', actions: 'compose' },
        'message.composed': { actions: 'announceTurn' },
        'message.merged': { actions: 'announceMerge' },
        'message.failed': { target: 'failed', actions: 'announceFailure' },
      },
    },
    failed: {},
  },
});
