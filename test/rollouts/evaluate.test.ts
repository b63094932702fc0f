// An evaluation: which dialogues it holds and what it makes of them.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { measureTeam } from '../../src/domain/metrics.ts';
import type { GenerationRequest } from '../../src/domain/model.ts';
import { silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { type EvaluationPlan, evaluateTeam } from '../../src/rollouts/evaluate.ts';
import { loadTasks } from '../../src/scenario/tasks.ts';
import { solveWordPair, wordPairs } from '../support/scenarios.ts';

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
      trajectories.map(({ id, format, plainViews }) => [id, format, plainViews.alice]),
      tasks.map(({ id, task }) => [`trained/${id}/0`, null, `word: ${(task as { left: string }).left}`]),
    );
  }
  for (const { sampling } of requests) {
    assert.equal(sampling, { temperature: 0, topP: 1, topK: 0, maxTokens: 20 });
  }
});

test('its figures are those of its dialogues, the interval drawn from the phase’s own generator', async () => {
  const { metrics, trajectories } = await evaluateTeam(plan());
  assert.equal(metrics, measureTeam(trajectories, createRng(11).split('bootstrap').split('trained')));
  assert.is(metrics.f1, 3 / 8);
  assert.is(metrics.n, 8);
  const base = await evaluateTeam(plan({ phase: 'base' }));
  assert.equal(
    base.metrics.f1Interval,
    measureTeam(base.trajectories, createRng(11).split('bootstrap').split('base')).f1Interval,
  );
});

test('with one dialogue that was judged there are figures, with none there is an error and no score', async () => {
  const failing = (fine: string) =>
    scriptedModel({
      reply: (request) => {
        if (request.id.includes(fine)) return solveWordPair(request);
        throw new Error('no words');
      },
    });
  const change = { count: 3, concurrency: 1 };
  const { metrics } = await evaluateTeam(plan({ ...change, models: [failing('test-00001')] }));
  assert.equal([metrics.n, metrics.failed], [1, 2]);
  const error = await evaluateTeam(plan({ ...change, models: [failing('nobody')] })).then(
    () => null,
    (thrown: OptimaError) => thrown,
  );
  assert.is(error?.code, 'evaluation.empty');
  assert.is(
    error?.message,
    'trained: all 3 dialogues failed, the first because: Turn 0 of alice failed: Request trained/test-00000/0#0: no words',
  );
});

test.run();
