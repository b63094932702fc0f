// The agent's statechart: when it speaks, what it sees, and how it fails.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor, fromPromise, SimulatedClock } from 'xstate';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import { agentMachine, type SpeakInput, type Utterance } from '../../src/machines/index.ts';
import { closed, dialogue, done, error, play, requested, taken, turnOf } from '../support/machines.ts';

const input = { role: 'bob', dialogueId: dialogue, turnTimeoutMs: 1000 };
const opened = {
  type: 'dialogue.opened' as const,
  dialogueId: dialogue,
  taskId: 'train-00000',
  views: { alice: 'A', bob: 'B' },
  plainViews: { alice: 'A', bob: 'B' },
  format: null,
};

function utterance(text: string): Utterance {
  const { id: _, parent: __, index: ___, speaker: ____, ...rest } = turnOf(0, 'bob', text);
  return rest;
}

test('an agent listens until the floor is its own', () => {
  assert.is(play(agentMachine, input, []).state.value, 'listening');
  assert.is(play(agentMachine, input, [opened, requested(0, 'alice')]).state.value, 'listening');
  assert.is(play(agentMachine, input, [opened, requested(0, 'bob')]).state.value, 'composing');
});

test('it keeps its own view and nobody else’s', () => {
  const { state } = play(agentMachine, input, [opened]);
  assert.is(state.context.systemText, 'B');
});

test('what it speaks becomes a turn in its place', () => {
  const { state, emitted } = play(agentMachine, input, [
    opened,
    taken(0, 'alice', 'hello bob'),
    requested(1, 'bob'),
    done('speak', utterance('hi')),
  ]);
  assert.is(state.value, 'listening');
  assert.equal(emitted, [taken(1, 'bob', 'hi')]);
});

test('it adds a turn to its memory when it hears it, its own included', () => {
  const { state } = play(agentMachine, input, [opened, taken(0, 'alice', 'a'), taken(1, 'bob', 'b')]);
  assert.equal(
    state.context.turns.map((turn) => turn.speaker),
    ['alice', 'bob'],
  );
});

test('a model that fails makes a failed turn and nothing more', () => {
  const { state, emitted } = play(agentMachine, input, [
    opened,
    requested(0, 'bob'),
    error('speak', new Error('server\n gone')),
    requested(0, 'bob'),
  ]);
  assert.is(state.value, 'failing');
  assert.equal(emitted, [
    { type: 'turn.failed', dialogueId: dialogue, index: 0, speaker: 'bob', reason: 'server gone' },
  ]);
});

test('the end of the dialogue dismisses it, even while it composes', () => {
  assert.is(play(agentMachine, input, [opened, closed('agreed')]).state.status, 'done');
  const { state } = play(agentMachine, input, [opened, requested(0, 'bob'), closed('failed', 'x')]);
  assert.is(state.value, 'dismissed');
});

test('the model is asked with the conversation as the role sees it', async () => {
  let asked: SpeakInput | undefined;
  const speak = fromPromise<Utterance, SpeakInput>(async ({ input }) => {
    asked = input;
    return utterance('hi');
  });
  const actor = createActor(agentMachine.provide({ actors: { speak } }), { input }).start();
  const said = new Promise<DialogueMessage>((resolve) => actor.on('*', resolve));
  actor.send(opened as never);
  actor.send(taken(0, 'bob', 'one two'));
  actor.send(taken(1, 'alice', 'three'));
  actor.send(requested(2, 'bob'));
  assert.is((await said).type, 'turn.taken');
  assert.equal(asked, {
    id: `${dialogue}#2`,
    dialogueId: dialogue,
    index: 2,
    role: 'bob',
    messages: [
      { role: 'system', content: 'B' },
      { role: 'assistant', content: 'one two', tokenIds: [3, 3] },
      { role: 'user', content: 'three' },
    ],
  });
});

test('a model that does not answer in time is aborted and its turn fails', async () => {
  let aborted = false;
  const speak = fromPromise<Utterance, SpeakInput>(({ signal }) => {
    signal.addEventListener('abort', () => {
      aborted = true;
    });
    return new Promise(() => {});
  });
  const clock = new SimulatedClock();
  const actor = createActor(agentMachine.provide({ actors: { speak } }), { input, clock }).start();
  const emitted: DialogueMessage[] = [];
  actor.on('*', (message) => emitted.push(message));
  actor.send(requested(0, 'bob'));
  clock.increment(999);
  assert.is(emitted.length, 0);
  clock.increment(1);
  assert.match((emitted[0] as { reason: string }).reason, 'No message within 1000 ms');
  assert.ok(aborted);
  assert.is(actor.getSnapshot().value, 'failing');
});

test.run();
