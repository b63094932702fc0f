// Pure transitions of a statechart, and the messages they emit.
import {
  type AnyStateMachine,
  type InputFrom,
  initialTransition,
  type SnapshotFrom,
  transition,
} from 'xstate';
import { childId, type NodeId, type PolicyHash, rootId, taskId } from '../../src/domain/ids.ts';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import type { Turn } from '../../src/domain/transcript.ts';

/** The tree that all is part of, and the dialogue that is its first branch. */
export const tree = rootId('test', taskId('train', 0));
export const dialogue = childId(tree, 0);

/** Node of turn `index` of that dialogue; the root for −1. */
export const nodeAt = (index: number): NodeId =>
  index < 0 ? tree : index === 0 ? dialogue : childId(nodeAt(index - 1), 0);

/** A turn as an agent would have taken it; every word is one token. */
export function turnOf(index: number, speaker: string, text: string): Turn {
  const tokenIds = text.split(' ').map((word) => word.length);
  return {
    id: nodeAt(index),
    parent: nodeAt(index - 1),
    speaker,
    text,
    tokenIds,
    logprobs: tokenIds.map(() => -1),
    finish: 'stop',
    policyHash: 'test' as PolicyHash,
    seed: 7,
    provenance: 'sampled',
    promptTokens: 3,
  };
}

export const taken = (index: number, speaker: string, text: string) => ({
  type: 'turn.taken' as const,
  dialogueId: dialogue,
  turn: turnOf(index, speaker, text),
});

export const requested = (index: number, speaker: string) => ({
  type: 'turn.requested' as const,
  nodeId: nodeAt(index),
  speaker,
});

export const closed = (
  outcome: 'agreed' | 'turn-cap' | 'failed',
  failure: string | null = null,
  refusedBy?: string,
) => ({
  type: 'dialogue.closed' as const,
  dialogueId: dialogue,
  outcome,
  failure,
  ...(refusedBy !== undefined && { refusedBy }),
});

/** Plays events through a machine without running anything: the last snapshot, and all it emitted. */
export function play<Machine extends AnyStateMachine>(
  machine: Machine,
  input: InputFrom<Machine>,
  events: readonly { readonly type: string; readonly [field: string]: unknown }[],
): { state: SnapshotFrom<Machine>; emitted: DialogueMessage[] } {
  let [state, actions] = initialTransition(machine as AnyStateMachine, input);
  const executed: { readonly type: string; readonly params?: unknown }[] = [...actions];
  for (const event of events) {
    [state, actions] = transition(machine as AnyStateMachine, state, event);
    executed.push(...actions);
  }
  const emitted = executed
    .filter((action) => action.type === 'xstate.emit')
    .map((action) => (action.params as { event: DialogueMessage }).event);
  return { state: state as SnapshotFrom<Machine>, emitted };
}
