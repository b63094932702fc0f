// The root actor of a dialogue: actors that break, and the end of the bus.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type AnyActorLogic, createActor, fromPromise } from 'xstate';
import { createBus, dialogueMachine } from '../../src/actors/index.ts';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import type { Verdict } from '../../src/domain/transcript.ts';
import {
  agentMachine,
  environmentMachine,
  judgeMachine,
  type ScoreInput,
  type SpeakInput,
  type Utterance,
} from '../../src/machines/index.ts';
import { turnOf } from '../support/machines.ts';
import { solveWordPair, wordPairEpisodes, wordPairs } from '../support/scenarios.ts';

const speak = fromPromise<Utterance, SpeakInput>(async ({ input: { messages } }) =>
  turnOf(0, '', solveWordPair({ messages })),
);
const agent = agentMachine.provide({ actors: { speak } });

/** Holds one dialogue to its end: all that was said, once the bus has completed. */
function hold(machine: typeof dialogueMachine): Promise<DialogueMessage[]> {
  const bus = createBus();
  const messages: DialogueMessage[] = [];
  const [episode] = wordPairEpisodes(1) as [ReturnType<typeof wordPairEpisodes>[0]];
  const input = { episode, scenario: wordPairs(), bus, turnTimeoutMs: 1000 };
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
  const messages = await hold(dialogueMachine.provide({ actors: { agent } }));
  assert.is(messages.at(-1)!.type, 'verdict.given');
});

test('an environment that breaks closes the dialogue as failed', async () => {
  const environment = environmentMachine.provide({ actions: { appendTurn: boom } });
  const messages = await hold(dialogueMachine.provide({ actors: { agent, environment } }));
  assert.equal(
    messages.map(({ type }) => type),
    ['dialogue.opened', 'turn.requested', 'turn.taken', 'dialogue.closed'],
  );
  assert.match((messages.at(-1) as { failure: string }).failure, 'boom');
});

test('an agent that breaks closes the dialogue as failed', async () => {
  const broken = agent.provide({ actions: { announceTurn: boom } });
  const messages = await hold(dialogueMachine.provide({ actors: { agent: broken } }));
  assert.is(messages.at(-1)!.type, 'dialogue.closed');
  assert.match((messages.at(-1) as { failure: string }).failure, 'boom');
});

test('a judge that breaks, or says what the bus refuses, fails the verdict', async () => {
  const silent = judgeMachine.provide({ actions: { announceVerdict: boom } });
  const wrong = judgeMachine.provide({
    actors: {
      score: fromPromise<Verdict, ScoreInput>(async () => ({ taskScore: 2, exactMatch: true, answer: null })),
    },
  });
  for (const [judge, reason] of [
    [silent, 'boom'],
    [wrong, 'Message verdict.given: field taskScore'],
  ] as const) {
    const messages = await hold(dialogueMachine.provide({ actors: { agent, judge } }));
    assert.equal(
      messages.slice(-2).map(({ type }) => type),
      ['dialogue.closed', 'verdict.failed'],
    );
    assert.match((messages.at(-1) as { reason: string }).reason, reason);
  }
});

test('what an actor hears is named by its machine', () => {
  const events = (machine: AnyActorLogic & { events: readonly string[] }) =>
    machine.events.filter((type) => !type.startsWith('xstate.')).sort();
  assert.equal(events(environmentMachine), ['dialogue.open', 'turn.failed', 'turn.taken']);
  assert.equal(events(agentMachine), ['dialogue.closed', 'dialogue.opened', 'turn.requested', 'turn.taken']);
  assert.equal(events(judgeMachine), ['dialogue.closed', 'turn.taken']);
});

test.run();
