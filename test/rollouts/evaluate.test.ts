// An evaluation: which dialogues it holds and what it makes of them.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { TeamFigures } from '../../src/domain/metrics.ts';
import type { GenerationRequest, LanguageModel } from '../../src/domain/model.ts';
import { type Progress, silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { type EvaluationPlan, evaluateTeam, measureEvaluation } from '../../src/rollouts/evaluate.ts';
import { loadTasks } from '../../src/scenario/tasks.ts';
import { measureTeam } from '../support/metrics.ts';
import { refusing, solveWordPair, wordPairs } from '../support/scenarios.ts';

const scenario = wordPairs();
const rng = createRng(11);
const requests: GenerationRequest[] = [];
const model = scriptedModel({
  reply: (request) => {
    requests.push(request);
    // Some answers are wrong, so that the interval has a width.
    return /0000[3-7]/.test(request.id) ? '<A>oak</A>' : solveWordPair(request);
  },
});
const plan = (change: Partial<EvaluationPlan> = {}): EvaluationPlan => ({
  phase: 'trained',
  scenario,
  models: [model],
  split: 'test',
  count: 8,
  maxMessageTokens: 20,
  concurrency: 8,
  rng,
  progress: silent,
  ...change,
});

test('the first tasks of the split are played once each, plain and at temperature 0', async () => {
  for (const split of ['validation', 'test'] as const) {
    const { trajectories } = await evaluateTeam(plan({ split }));
    const tasks = await loadTasks(scenario, split, { from: 0, count: 8 }, createRng(11));
    assert.equal(
      trajectories.map(({ id, format, views }) => [id, format, views.alice]),
      tasks.map(({ id, task }) => [`trained/${id}.0`, null, `word: ${(task as { left: string }).left}`]),
    );
  }
  for (const { sampling } of requests) {
    assert.equal(sampling, { temperature: 0, topP: 1, topK: 0, maxTokens: 20 });
  }
});

test('its figures are those of its dialogues, the interval drawn from the phase’s own generator', async () => {
  const { metrics, trajectories } = await evaluateTeam(plan());
  assert.equal(metrics, measureTeam(trajectories, createRng(11).split('bootstrap').split('trained')));
  assert.is(metrics.taskScore, 3 / 8);
  assert.is(metrics.n, 8);
  const base = await evaluateTeam(plan({ phase: 'base' }));
  assert.equal(
    base.metrics.taskScoreInterval,
    measureTeam(base.trajectories, createRng(11).split('bootstrap').split('base')).taskScoreInterval,
  );
});

test('with one dialogue that has a score there are figures, with none there is an error and no score', async () => {
  // As a partner's model, which the evaluation is not about.
  const failing = (fine: string) =>
    refusing(scriptedModel({ reply: solveWordPair }), (id) => !id.includes(fine) && 'no words');
  const change = { count: 3, concurrency: 1, evaluated: ['bob'] };
  const { metrics } = await evaluateTeam(plan({ ...change, models: [failing('test-00001')] }));
  assert.equal([metrics.n, metrics.failed], [1, 2]);
  const error = await evaluateTeam(plan({ ...change, models: [failing('nobody')] })).then(
    () => null,
    (thrown: OptimaError) => thrown,
  );
  assert.is(error?.code, 'evaluation.empty');
  assert.is(
    error?.message,
    'trained: all 3 dialogues failed, the first because: Turn 0 of alice failed: no words',
  );
});

test('a format is asked for in every dialogue, where there is one', async () => {
  requests.length = 0;
  const format = { name: 'terse', prompt: 'Be terse.' };
  const { trajectories } = await evaluateTeam(plan({ format, count: 3 }));
  assert.equal(
    trajectories.map(({ format }) => format),
    ['terse', 'terse', 'terse'],
  );
  for (const { messages } of requests) assert.match(messages[0]!.content, /^word: \w+\nBe terse\.$/);
  assert.match(trajectories[0]!.views.alice!, /^word: \w+$/);
});

test('a team has one model for every role, or one for each', async () => {
  const other = scriptedModel({ reply: solveWordPair, hash: 'other' });
  const { trajectories } = await evaluateTeam(plan({ models: [{ alice: model, bob: other }], count: 1 }));
  assert.equal(
    trajectories[0]!.turns.map(({ speaker, policyHash }) => [speaker, policyHash]),
    [
      ['alice', 'scripted'],
      ['bob', 'other'],
      ['alice', 'scripted'],
    ],
  );
});

test('cohorts of the team play side by side, with the same result', async () => {
  const sizes: number[] = [];
  const counting: LanguageModel = {
    ...model,
    generate(asked, options) {
      sizes.push(asked.length);
      return model.generate(asked, options);
    },
  };
  const alone = await evaluateTeam(plan());
  const split = await evaluateTeam(plan({ models: [counting, counting], concurrency: 3 }));
  assert.equal(split, alone);
  assert.is(Math.max(...sizes), 3);
});

test('a watcher is told of the stage, of each dialogue, and of what came of them', async () => {
  const lines: string[] = [];
  const progress: Progress = {
    begin: (stage, total, unit) => lines.push(`${stage}: ${total} ${unit}`),
    advance: (done) => lines.push(String(done)),
    end: (result) => lines.push(result),
    measured: () => lines.push('measured'),
  };
  await evaluateTeam(plan({ count: 3, concurrency: 2, progress }));
  assert.equal(lines, ['trained: 3 dialogues', '1', '2', '3', '3 dialogues']);
});

test('an evaluation that is interrupted has no result', async () => {
  const error = await evaluateTeam(plan({ signal: AbortSignal.abort() })).then(
    () => null,
    (thrown: OptimaError) => thrown,
  );
  assert.is(error?.code, 'interrupted');
});

test('figures of dialogues that were folded elsewhere give the metrics of the phase', async () => {
  const { metrics, trajectories } = await evaluateTeam(plan());
  const figures = new TeamFigures();
  for (const trajectory of trajectories) figures.add(trajectory);
  assert.equal(measureEvaluation('trained', figures, createRng(11)), metrics);
  assert.throws(
    () => measureEvaluation('base', new TeamFigures(), createRng(11)),
    (error: OptimaError) =>
      error.code === 'evaluation.empty' &&
      error.message === 'base: all 0 dialogues failed, the first because: null',
  );
});

test.run();
