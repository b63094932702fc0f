// What a metric may say of a dialogue, and what is made of it.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { defineScenario, type Judged, type Scenario } from '../../src/scenario/index.ts';
import { nobody, scoreDialogue } from '../../src/scenario/score.ts';
import { type WordPair, wordPairs } from '../support/scenarios.ts';

const dialogue: Judged<WordPair> = {
  ...{ task: { left: 'oak', right: 'elm' }, turns: [], answer: 'oak elm', answers: ['oak elm'] },
  outcome: 'agreed',
  ...{ judge: nobody('there is none'), signal: new AbortController().signal },
};
const giving = (score: unknown): Scenario =>
  wordPairs({ metric: { name: 'odd', score: () => score as number } });
const scored = (score: unknown) => scoreDialogue(giving(score), dialogue);

test('a bare number is a score, exact where it is 1', async () => {
  assert.equal(scored(1), { score: 1, exactMatch: true });
  assert.equal(scored(0.5), { score: 0.5, exactMatch: false });
  assert.equal(scored({ score: 1 }), { score: 1, exactMatch: true });
  assert.equal(scored({ score: 0.9, exactMatch: true }), { score: 0.9, exactMatch: true });
  assert.equal(await scored(Promise.resolve(0)), { score: 0, exactMatch: false });
});

test('of seats alone the team’s score is the mean', () => {
  const seats = { alice: 0.75, bob: 0.25 };
  assert.equal(scored({ seats }), { score: 0.5, exactMatch: false, seats });
  assert.equal(scored({ seats, score: 1 }), { score: 1, exactMatch: true, seats });
  assert.equal(scored({ seats: { bob: 1, alice: 1 }, exactMatch: false }), {
    ...{ score: 1, exactMatch: false, seats: { alice: 1, bob: 1 } },
  });
});

test('every seat has a score in [0, 1], and nobody else has', () => {
  const wrong = (score: unknown, message: string) => assert.throws(() => scored(score), message);
  wrong({ seats: { alice: 1 } }, 'metric odd gave undefined for seat bob, not a number in [0, 1].');
  wrong({ seats: { alice: 1, bob: 2 }, score: 1 }, 'metric odd gave 2 for seat bob, not a number in [0, 1].');
  wrong(
    { seats: { alice: 1, bob: 1, eve: 1 } },
    'metric odd gave a score to "eve", which is not one of alice, bob.',
  );
  for (const nothing of [undefined, null, 'x', {}, { score: '1' }, true]) {
    wrong(nothing, 'not a number in [0, 1].');
  }
});

test('a metric may be a function of the dialogue, named by itself, and needs no answers', () => {
  const { answers: _, ...definition } = wordPairs();
  const fairness = ({ task, answer }: Judged<WordPair>) => Number(answer === `${task.left} ${task.right}`);
  const named = defineScenario({ ...definition, metric: fairness });
  assert.is(named.metric.name, 'fairness');
  assert.equal(named.answers(dialogue.task), []);
  assert.equal(scoreDialogue(named, dialogue), { score: 1, exactMatch: true });
  const inline = defineScenario({ ...definition, metric: ({ answers }) => answers.length / 2 });
  assert.is(inline.metric.name, 'score');
  assert.equal(scoreDialogue(inline, dialogue), { score: 0.5, exactMatch: false });
  // Validated again as a file is loaded, it stays what it is.
  assert.is(defineScenario(inline), inline);
  const { metric } = wordPairs();
  assert.throws(() => defineScenario({ ...definition, metric }), 'answers is missing.');
});

test.run();
