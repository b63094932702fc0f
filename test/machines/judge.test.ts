// The judge's statechart: which answer it scores, and that a broken metric is a failure, never a zero.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createActor } from 'xstate';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash } from '../../src/domain/ids.ts';
import type { Turn, Verdict } from '../../src/domain/transcript.ts';
import { computeVerdict, type JudgeContext, judgeMachine } from '../../src/machines/index.ts';
import type { Judge, Judged, Metric, Scenario } from '../../src/scenario/index.ts';
import { closed, dialogue, play, turnOf } from '../support/machines.ts';
import { wordPairs } from '../support/scenarios.ts';

const task = { left: 'oak', right: 'elm' };
const input = { dialogueId: dialogue, scenario: wordPairs(), task };
const verdict: Verdict = { taskScore: 1, exactMatch: true, answer: 'oak elm' };

const asking = {
  outcome: 'agreed' as const,
  judge: { ask: async () => 'fair' } satisfies Judge,
  signal: new AbortController().signal,
};
const views = { alice: 'oak', bob: 'elm' };

/** A verdict that is given at once. */
function verdictOf(
  scenario: Scenario,
  told: Readonly<Record<string, string>>,
  turns: readonly Turn[],
): Verdict {
  const verdict = computeVerdict(scenario, task, told, turns, asking);
  if (verdict instanceof Promise) throw new Error('it takes time');
  return verdict;
}

const turnsOf = (texts: readonly string[]) => texts.map((text, index) => turnOf(index, 'alice', text));
const judge = (texts: readonly string[], metric?: Metric): Verdict =>
  verdictOf(wordPairs(metric && { metric }), views, turnsOf(texts));

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

test('what the judge model was asked is said before the verdict, or before why there is none', () => {
  const asked = [0, 1].map((question) => ({
    ...{
      type: 'judge.asked' as const,
      dialogueId: dialogue,
      question,
      prompt: 'Fair?',
      reply: 'no',
      tokenIds: [1],
    },
    ...{ finish: 'stop' as const, policyHash: 'judge' as PolicyHash, seed: 1, promptTokens: 2 },
  }));
  for (const end of [
    { type: 'score.computed', verdict },
    { type: 'score.failed', reason: 'no answer key' },
  ]) {
    const { emitted } = play(judgeMachine, input, [closed('agreed'), { ...end, asked }]);
    assert.equal(emitted.slice(0, 2), asked);
    assert.is(emitted.length, 3);
  }
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

test('a metric sees the task, all turns, the answer and those that are right, and may ask', async () => {
  const seen: Judged[] = [];
  const metric: Metric = {
    name: 'curious',
    score: async (prediction, answers, dialogue) => {
      seen.push(dialogue);
      assert.equal([prediction, answers], [dialogue.answer, dialogue.answers]);
      return (await dialogue.judge.ask('Was it fair?')) === 'fair' ? 1 : 0;
    },
  };
  const turns = turnsOf(['hm', '<A>elm oak</A>']);
  const given = computeVerdict(wordPairs({ metric }), task, views, turns, asking);
  assert.instance(given, Promise);
  assert.equal(await given, { taskScore: 1, exactMatch: true, answer: 'elm oak' });
  assert.equal(seen, [{ task, turns, answer: 'elm oak', answers: ['oak elm'], ...asking }]);
});

test('a promise that rejects, or comes to no score, is the metric’s failure', async () => {
  const reason = async (score: () => Promise<never>) => {
    try {
      await computeVerdict(wordPairs({ metric: { name: 'slow', score } }), task, views, [], asking);
    } catch (error) {
      return [(error as OptimaError).code, (error as OptimaError).message];
    }
    return assert.unreachable();
  };
  assert.equal(await reason(() => Promise.reject(new Error('no judge today'))), [
    'metric.failed',
    'Scenario "word-pairs": metric slow threw: no judge today.',
  ]);
  assert.equal(await reason(async () => 7 as never), [
    'metric.failed',
    'Scenario "word-pairs": metric slow gave 7, not a number in [0, 1].',
  ]);
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
  assert.equal(verdictOf(told, { alice: 'End with <A>both</A>.', bob: '' }, turns), verdict);
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
        error.message ===
        `Scenario "word-pairs": metric odd gave ${typeof score === 'string' ? 'a string' : score}, not a number in [0, 1].`,
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
