// The judge's statechart: which answer it scores, and that a broken metric is a failure, never a zero.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor, fromPromise, SimulatedClock } from 'xstate';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import type { Verdict } from '../../src/domain/transcript.ts';
import { computeVerdict, judgeMachine, type ScoreInput } from '../../src/machines/index.ts';
import type { Metric } from '../../src/scenario/index.ts';
import { closed, dialogue, done, error, play, taken, turnOf } from '../support/machines.ts';
import { wordPairs } from '../support/scenarios.ts';

const task = { left: 'oak', right: 'elm' };
const input = { dialogueId: dialogue, scenario: wordPairs(), task, verdictTimeoutMs: 1000 };
const verdict: Verdict = { taskScore: 1, exactMatch: true, answer: 'oak elm' };

function judge(texts: readonly string[], metric?: Metric): Verdict {
  const turns = texts.map((text, index) => turnOf(index, 'alice', text));
  return computeVerdict({ scenario: wordPairs(metric && { metric }), task, turns });
}

test('it waits for the end, then judges', () => {
  assert.is(play(judgeMachine, input, [taken(0, 'alice', 'a')]).state.value, 'waiting');
  assert.is(play(judgeMachine, input, [closed('agreed')]).state.value, 'judging');
  assert.is(play(judgeMachine, input, [closed('turn-cap')]).state.value, 'judging');
});

test('a failed dialogue gets no verdict', () => {
  const { state, emitted } = play(judgeMachine, input, [closed('failed', 'x')]);
  assert.is(state.value, 'dismissed');
  assert.equal(emitted, []);
});

test('the verdict is said on the bus', () => {
  const { state, emitted } = play(judgeMachine, input, [closed('agreed'), done('score', verdict)]);
  assert.is(state.value, 'verdictGiven');
  assert.equal(emitted, [{ type: 'verdict.given', dialogueId: dialogue, ...verdict }]);
});

test('a score that throws is said on the bus, too', () => {
  const { state, emitted } = play(judgeMachine, input, [
    closed('agreed'),
    error('score', new Error('no answer key')),
  ]);
  assert.is(state.value, 'verdictFailed');
  assert.equal(emitted, [{ type: 'verdict.failed', dialogueId: dialogue, reason: 'no answer key' }]);
});

test('a score that takes too long fails', () => {
  const score = fromPromise<Verdict, ScoreInput>(() => new Promise(() => {}));
  const clock = new SimulatedClock();
  const actor = createActor(judgeMachine.provide({ actors: { score } }), { input, clock }).start();
  const emitted: DialogueMessage[] = [];
  actor.on('*', (message) => emitted.push(message));
  actor.send(closed('agreed'));
  clock.increment(1000);
  assert.equal(emitted, [
    { type: 'verdict.failed', dialogueId: dialogue, reason: 'No verdict within 1000 ms.' },
  ]);
});

test('the team’s answer is the last that any message stated', () => {
  assert.equal(judge(['<A>elm oak</A>', '<A>oak elm</A>', 'bye']), verdict);
  assert.equal(judge(['<A>oak elm</A>', '<A>elm oak</A>']), {
    taskScore: 0,
    exactMatch: false,
    answer: 'elm oak',
  });
});

test('a dialogue without an answer is scored as one', () => {
  assert.equal(judge(['hm', 'hm']), { taskScore: 0, exactMatch: false, answer: null });
});

test('a metric that throws or leaves [0, 1] fails with its name', () => {
  const giving = (score: unknown): Metric => ({
    name: 'odd',
    score: () => ({ score: score as number, exactMatch: false }),
  });
  for (const score of [Number.NaN, Number.POSITIVE_INFINITY, -0.1, 1.1, undefined, '1']) {
    assert.throws(
      () => judge(['x'], giving(score)),
      (error: Error) =>
        error.message === `Scenario "word-pairs": metric odd gave ${score}, not a number in [0, 1].`,
    );
  }
  const throwing: Metric = {
    name: 'odd',
    score: () => {
      throw new Error('boom');
    },
  };
  assert.throws(() => judge(['x'], throwing), /metric odd threw: boom/);
});

test.run();
