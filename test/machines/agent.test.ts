// The agent's statechart: when it composes, what it says, and how it fails.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor } from 'xstate';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import { type AgentContext, agentMachine, type Utterance } from '../../src/machines/index.ts';
import { dialogue, nodeAt, play, requested, taken, turnOf } from '../support/machines.ts';

const input = { role: 'bob', dialogueId: dialogue };

function utterance(text: string): Utterance {
  const { id: _, parent: __, speaker: ___, ...rest } = turnOf(0, 'bob', text);
  return rest;
}

const composed = (index: number, text: string) => ({
  type: 'message.composed' as const,
  nodeId: nodeAt(index),
  parent: nodeAt(index - 1),
  utterance: utterance(text),
  manner: { text },
});
const failed = (index: number) => ({
  type: 'message.failed' as const,
  nodeId: nodeAt(index),
  reason: 'server gone',
});

/** What a started agent asks of the world, and what it says. */
function start() {
  const asked: { context: AgentContext; event: { type: string } }[] = [];
  const said: DialogueMessage[] = [];
  const machine = agentMachine.provide({
    actions: { compose: ({ context, event }) => void asked.push({ context, event }) },
  });
  const actor = createActor(machine, { input });
  actor.on('*', (message) => said.push(message));
  return { actor: actor.start(), asked, said };
}

test('an agent composes when the floor is its own, and says nothing until it has', () => {
  const { actor, asked, said } = start();
  actor.send(requested(0, 'alice'));
  assert.equal(asked, []);
  actor.send(requested(1, 'bob'));
  assert.equal(asked, [{ context: input, event: requested(1, 'bob') }]);
  assert.equal(said, []);
});

test('what was composed becomes a turn at its node, below the one that it answers', () => {
  const { state, emitted } = play(agentMachine, input, [composed(1, 'hi'), composed(0, 'ho')]);
  assert.is(state.value, 'present');
  assert.equal(emitted, [taken(1, 'bob', 'hi'), taken(0, 'bob', 'ho')]);
});

test('of what was composed a turn takes its words and where they came from, and nothing more', () => {
  const event = { ...composed(1, 'hi'), utterance: { ...utterance('hi'), seen: 'a secret' } };
  const { emitted } = play(agentMachine, input, [event]);
  assert.equal(emitted, [taken(1, 'bob', 'hi')]);
});

test('a message that could not be composed makes a failed turn, and the agent composes no more', () => {
  const { actor, asked, said } = start();
  actor.send(requested(0, 'bob'));
  actor.send(failed(0));
  actor.send(requested(0, 'bob'));
  actor.send(composed(0, 'too late'));
  assert.is(actor.getSnapshot().value, 'failed');
  assert.is(asked.length, 1);
  assert.equal(said, [
    { type: 'turn.failed', dialogueId: dialogue, nodeId: nodeAt(0), speaker: 'bob', reason: 'server gone' },
  ]);
});

test('an agent without a world says so', () => {
  const actor = createActor(agentMachine, { input });
  let error: unknown;
  actor.subscribe({ error: (thrown) => (error = thrown) });
  actor.start().send(requested(0, 'bob'));
  assert.match((error as Error).message, 'Action "compose" was not provided.');
});

test('what is as good as a turn that stands there is said with its words, and names that turn', () => {
  const event = { ...composed(1, 'hi there'), type: 'message.merged' as const, into: nodeAt(2) };
  const { state, emitted } = play(agentMachine, input, [event]);
  assert.is(state.value, 'present');
  assert.equal(emitted, [
    {
      ...{ type: 'turn.merged', dialogueId: dialogue, nodeId: nodeAt(1), speaker: 'bob', into: nodeAt(2) },
      ...{ text: 'hi there', tokenIds: [2, 5], promptTokens: 3 },
    },
  ]);
});

test.run();
