// The judge's statechart: which answer it scores, and that a broken metric is a failure, never a zero.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor } from 'xstate';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { Verdict } from '../../src/domain/transcript.ts';
import { computeVerdict, type JudgeContext, judgeMachine } from '../../src/machines/index.ts';
import type { Metric } from '../../src/scenario/index.ts';
import { closed, dialogue, play, turnOf } from '../support/machines.ts';
import { wordPairs } from '../support/scenarios.ts';

const task = { left: 'oak', right: 'elm' };
const input = { dialogueId: dialogue, scenario: wordPairs(), task };
const verdict: Verdict = { taskScore: 1, exactMatch: true, answer: 'oak elm' };

function judge(texts: readonly string[], metric?: Metric): Verdict {
  const turns = texts.map((text, index) => turnOf(index, 'alice', text));
  return computeVerdict(wordPairs(metric && { metric }), task, { alice: 'oak', bob: 'elm' }, turns);
}

test('it waits for the end, then has the dialogue scored', () => {
  const asked: JudgeContext[] = [];
  const machine = judgeMachine.provide({ actions: { score: ({ context }) => void asked.push(context) } });
  for (const outcome of ['agreed', 'turn-cap'] as const) {
    const actor = createActor(machine, { input }).start();
    assert.is(actor.getSnapshot().value, 'waiting');
    actor.send(closed(outcome));
    assert.is(actor.getSnapshot().value, 'judging');
  }
  assert.equal(asked, [input, input]);
});

test('a failed dialogue gets no verdict', () => {
  const { state, emitted } = play(judgeMachine, input, [closed('failed', 'x')]);
  assert.is(state.value, 'dismissed');
  assert.equal(emitted, []);
});

test('the verdict is said on the bus', () => {
  const { state, emitted } = play(judgeMachine, input, [
    closed('agreed'),
    { type: 'score.computed', verdict },
  ]);
  assert.is(state.value, 'verdictGiven');
  assert.equal(emitted, [{ type: 'verdict.given', dialogueId: dialogue, ...verdict }]);
});

test('a score that fails is said on the bus, too', () => {
  const { state, emitted } = play(judgeMachine, input, [
    closed('agreed'),
    { type: 'score.failed', reason: 'no answer key' },
  ]);
  assert.is(state.value, 'verdictFailed');
  assert.equal(emitted, [{ type: 'verdict.failed', dialogueId: dialogue, reason: 'no answer key' }]);
});

test('the team’s answer is the last that any message stated', () => {
  assert.equal(judge(['<A>elm oak</A>', '<A>oak elm</A>', 'bye']), verdict);
  assert.equal(judge(['<A>oak elm</A>', '<A>elm oak</A>']), {
    taskScore: 0,
    exactMatch: false,
    answer: 'elm oak',
  });
});

test('a metric that gives a promise is told that it is not waited for, and its rejection is no other fault', async () => {
  const slow = {
    name: 'slow',
    score: () => Promise.reject(new Error('no judge today')),
  } as unknown as Metric;
  assert.throws(
    () => judge(['<A>x</A>'], slow),
    (error: OptimaError) =>
      error.code === 'metric.failed' &&
      /metric slow threw: it gives a promise, and a metric gives/.test(error.message),
  );
  // An unhandled rejection would end the process here.
  await new Promise(setImmediate);
});

test('what is scored is stated by a role whose answer counts, and not by a view', () => {
  const told = wordPairs({
    protocol: { ...wordPairs().protocol, answeredBy: ['alice'] },
  });
  const turns = [
    turnOf(0, 'alice', '<A>oak elm</A>'),
    turnOf(1, 'bob', '<A>no</A>'),
    turnOf(2, 'alice', '<A>both</A>'),
  ];
  const views = { alice: 'End with <A>both</A>.', bob: '' };
  assert.equal(computeVerdict(told, task, views, turns), verdict);
});

test('a dialogue without an answer is scored as one', () => {
  assert.equal(judge(['hm', 'hm']), { taskScore: 0, exactMatch: false, answer: null });
});

test('score and exact match are the metric’s own, whichever they are', () => {
  for (const [score, exactMatch] of [
    [1, false],
    [0, true],
    [0.5, true],
  ] as const) {
    const metric: Metric = { name: 'odd', score: () => ({ score, exactMatch }) };
    assert.equal(judge(['<A>x</A>'], metric), { taskScore: score, exactMatch, answer: 'x' });
  }
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
  const boom = new Error('boom');
  const throwing: Metric = {
    name: 'odd',
    score: () => {
      throw boom;
    },
  };
  assert.throws(
    () => judge(['x'], throwing),
    (error: OptimaError) =>
      error.code === 'metric.failed' && /metric odd threw: boom/.test(error.message) && error.cause === boom,
  );
});

test.run();
