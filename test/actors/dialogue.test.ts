// The root actor of a dialogue: actors that break, and the end of the bus.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type AnyActorLogic, createActor } from 'xstate';
import { createBus, dialogueMachine } from '../../src/actors/index.ts';
import { type DialogueMessage, type MessageOf, messageSchemas } from '../../src/domain/messages.ts';
import { agentMachine, environmentMachine, judgeMachine } from '../../src/machines/index.ts';
import { tree, turnOf } from '../support/machines.ts';
import { wordPairEpisodes, wordPairs } from '../support/scenarios.ts';

const verdict = { taskScore: 1, exactMatch: true, answer: 'oak elm' };
const agent = agentMachine.provide({
  actions: {
    compose: ({ event, self }) => {
      const { nodeId } = event as MessageOf<'turn.requested'>;
      const utterance = turnOf(0, '', '<A>oak elm</A>');
      const manner = { text: utterance.text };
      self.send({ type: 'message.composed', nodeId, parent: tree, utterance, manner });
    },
  },
});
const judge = judgeMachine.provide({
  actions: { score: ({ self }) => self.send({ type: 'score.computed', verdict }) },
});
const machine = dialogueMachine.provide({ actors: { agent, judge } });

/** Holds one dialogue to its end: all that was said, and what the root actor errors with, else null. */
function hold(machine: typeof dialogueMachine): Promise<{ messages: DialogueMessage[]; error: unknown }> {
  const bus = createBus();
  const messages: DialogueMessage[] = [];
  const [episode] = wordPairEpisodes(1) as [ReturnType<typeof wordPairEpisodes>[0]];
  const recall = () => assert.unreachable('nothing was merged') as never;
  const input = { episode, scenario: wordPairs(), bus, recall };
  return new Promise((resolve) => {
    bus.messages$.subscribe({
      next: (message) => messages.push(message),
      complete: () => resolve({ messages, error: null }),
    });
    const actor = createActor(machine, { input });
    actor.subscribe({ error: (error) => resolve({ messages, error }) });
    actor.start();
  });
}

const boom = () => {
  throw new Error('boom');
};

test('the bus completes after the verdict', async () => {
  const { messages, error } = await hold(machine);
  assert.is(error, null);
  assert.is(messages.at(-1)!.type, 'verdict.given');
});

test('an actor that breaks, or says what the bus refuses, breaks the root, and is no fact of its dialogue', async () => {
  const wrongTurn = agent.provide({
    actions: {
      compose: ({ event, self }) => {
        const { nodeId } = event as MessageOf<'turn.requested'>;
        const utterance = { ...turnOf(0, '', 'hm'), seed: -1 };
        self.send({ type: 'message.composed', nodeId, parent: tree, utterance, manner: { text: 'hm' } });
      },
    },
  });
  const wrongVerdict = judge.provide({
    actions: {
      score: ({ self }) => self.send({ type: 'score.computed', verdict: { ...verdict, taskScore: 2 } }),
    },
  });
  for (const [actors, reason, last] of [
    [{ environment: environmentMachine.provide({ actions: { appendTurn: boom } }) }, 'boom', 'turn.taken'],
    [{ agent: agent.provide({ actions: { announceTurn: boom } }) }, 'boom', 'turn.requested'],
    [{ agent: wrongTurn }, 'Event turn.taken: field turn.seed', 'turn.requested'],
    [{ agent: agentMachine }, 'Action "compose" was not provided.', 'turn.requested'],
    [{ judge: judge.provide({ actions: { announceVerdict: boom } }) }, 'boom', 'dialogue.closed'],
    [{ judge: wrongVerdict }, 'Event verdict.given: field taskScore', 'dialogue.closed'],
    [{ judge: judgeMachine }, 'Action "score" was not provided.', 'dialogue.closed'],
  ] as const) {
    const { messages, error } = await hold(machine.provide({ actors }));
    assert.match((error as Error).message, reason);
    assert.is(messages.at(-1)!.type, last);
  }
});

test('what an actor hears is named by its machine', () => {
  const heard = (machine: AnyActorLogic & { events: readonly string[] }) =>
    machine.events.filter((type) => Object.hasOwn(messageSchemas, type)).sort();
  assert.equal(heard(environmentMachine), ['turn.failed', 'turn.merged', 'turn.taken']);
  assert.equal(heard(agentMachine), ['turn.requested']);
  assert.equal(heard(judgeMachine), ['dialogue.closed']);
});

test.run();
