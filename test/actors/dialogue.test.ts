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

/** Holds one dialogue to its end: all that was said, once the bus has completed. */
function hold(machine: typeof dialogueMachine): Promise<DialogueMessage[]> {
  const bus = createBus();
  const messages: DialogueMessage[] = [];
  const [episode] = wordPairEpisodes(1) as [ReturnType<typeof wordPairEpisodes>[0]];
  const recall = () => assert.unreachable('nothing was merged') as never;
  const input = { episode, scenario: wordPairs(), bus, recall };
  return new Promise((resolve) => {
    bus.messages$.subscribe({
      next: (message) => messages.push(message),
      complete: () => resolve(messages),
    });
    createActor(machine, { input }).start();
  });
}

const boom = () => {
  throw new Error('boom');
};

test('the bus completes after the verdict', async () => {
  const messages = await hold(machine);
  assert.is(messages.at(-1)!.type, 'verdict.given');
});

test('an environment that breaks closes the dialogue as failed', async () => {
  const environment = environmentMachine.provide({ actions: { appendTurn: boom } });
  const messages = await hold(machine.provide({ actors: { environment } }));
  assert.equal(
    messages.map(({ type }) => type),
    ['task.dealt', 'dialogue.opened', 'turn.requested', 'turn.taken', 'dialogue.closed'],
  );
  assert.match((messages.at(-1) as { failure: string }).failure, 'boom');
});

test('an agent that breaks closes the dialogue as failed', async () => {
  const broken = agent.provide({ actions: { announceTurn: boom } });
  const messages = await hold(machine.provide({ actors: { agent: broken } }));
  assert.is(messages.at(-1)!.type, 'dialogue.closed');
  assert.match((messages.at(-1) as { failure: string }).failure, 'boom');
});

test('a judge that breaks, or says what the bus refuses, fails the verdict', async () => {
  const silent = judge.provide({ actions: { announceVerdict: boom } });
  const wrong = judge.provide({
    actions: {
      score: ({ self }) => self.send({ type: 'score.computed', verdict: { ...verdict, taskScore: 2 } }),
    },
  });
  for (const [broken, reason] of [
    [silent, 'boom'],
    [wrong, 'Event verdict.given: field taskScore'],
    [judgeMachine, 'Action "score" was not provided.'],
  ] as const) {
    const messages = await hold(machine.provide({ actors: { judge: broken } }));
    assert.equal(
      messages.slice(-2).map(({ type }) => type),
      ['dialogue.closed', 'verdict.failed'],
    );
    assert.match((messages.at(-1) as { reason: string }).reason, reason);
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
