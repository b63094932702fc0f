// A dialogue that failed, in an evaluation: what the evaluated team's own model refused scores 0, what failed for anything else
// has no score; and no policy is chosen for what it broke off.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { GenerativeModel } from '../../src/domain/model.ts';
import { silent } from '../../src/domain/progress.ts';
import { createRng } from '../../src/domain/rng.ts';
import { scriptedModel } from '../../src/models/scripted/index.ts';
import { type EvaluationPlan, evaluateTeam } from '../../src/rollouts/evaluate.ts';
import { choosePolicy } from '../../src/run/figures.ts';
import {
  agreement,
  defineScenario,
  dialogue,
  exactMatch,
  type Scenario,
  tagged,
} from '../../src/scenario/index.ts';
import { refusing } from '../support/scenarios.ts';

interface Numbered {
  readonly n: number;
}

/** Both say yes, and it is right. */
const echo = (overrides: Partial<Scenario<Numbered>> = {}): Scenario => ({
  ...defineScenario({
    name: 'echo',
    kind: 'information-exchange',
    description: 'Say the number.',
    tasks: { load: async (_, count) => Array.from({ length: count }, (_, n): Numbered => ({ n })) },
    roles: { alice: { sees: ({ n }) => `a ${n}` }, bob: { sees: ({ n }) => `b ${n}` } },
    protocol: dialogue({ order: ['alice', 'bob'], maxTurns: 4, until: agreement() }),
    answer: tagged('A'),
    answers: () => ['yes'],
    metric: exactMatch,
    reward: { lambdaToken: 0, lambdaLoss: 0 },
    formats: [],
  }),
  ...(overrides as Partial<Scenario>),
});
const yes = scriptedModel({ reply: () => '<A>yes</A>' });
/** Refuses in these tasks, at this turn or later. */
const brittleIn = (tasks: readonly number[], turn = 0) =>
  refusing(yes, (id) => {
    const [, task, way] = /-(\d+)\.(.*)$/.exec(id)!;
    return tasks.includes(Number(task)) && way!.split('.').length > turn && 'the prompt fills the context';
  });
const evaluate = async (models: EvaluationPlan['models'][number], change: Partial<EvaluationPlan> = {}) =>
  (
    await evaluateTeam({
      ...{ phase: 'case', scenario: echo(), models: [models], split: 'test', count: 4, maxMessageTokens: 9 },
      ...{ concurrency: 8, rng: createRng(1), progress: silent, ...change },
    })
  ).metrics;
const chosen = (...validations: Awaited<ReturnType<typeof evaluate>>[]) =>
  choosePolicy(
    validations.map((validation, policy) => ({ policy, validation })),
    'best-validation',
  );

test('a policy whose dialogues fail does not look better for it', async () => {
  const steady = scriptedModel({ reply: ({ id }) => (/-0*3\./.test(id) ? '<A>no</A>' : '<A>yes</A>') });
  const good = await evaluate(steady);
  const bad = await evaluate(brittleIn([1, 2, 3]));
  assert.equal([good.taskScore, good.n, good.failed], [0.75, 4, 0]);
  assert.not('refused' in good);
  assert.equal([bad.taskScore, bad.exactMatch, bad.agreement], [0.25, 0.25, 0.25]);
  assert.equal([bad.n, bad.failed, bad.refused], [4, 3, 3]);
  assert.is(bad.taskScoreInterval[0], 0);
  assert.is(chosen(good, bad), 0);
  assert.is(chosen(bad, good), 1);
  // As right, in fewer tokens: what is broken off has fewer.
  const seldom = scriptedModel({
    reply: ({ id }) => (/-0*0\./.test(id) ? '<A>yes</A>' : 'no, no, <A>no</A>'),
  });
  const longer = await evaluate(seldom);
  assert.is(longer.taskScore, bad.taskScore);
  assert.ok(longer.tokens > bad.tokens);
  assert.is(chosen(longer, bad), 0);
  assert.is(chosen(bad, longer), 1);
});

test('all that is refused scores 0, and what was said before counts as it was paid for', async () => {
  const all = await evaluate(brittleIn([0, 1, 2, 3]));
  assert.equal([all.taskScore, all.n, all.failed, all.refused, all.tokens], [0, 4, 4, 4, 0]);
  assert.equal(all.taskScoreInterval, [0, 0]);
  const whole = await evaluate(yes);
  const half = await evaluate(brittleIn([0, 1], 1));
  assert.equal([whole.turns, half.turns], [2, (2 + 2 + 1 + 1) / 4]);
  assert.is(half.tokens, (whole.tokens * 3) / 4);
  assert.is(half.shortestRight, whole.shortestRight);
});

test('every seat of what is refused scores 0', async () => {
  const scenario = echo({ metric: { name: 'seats', score: () => ({ seats: { alice: 1, bob: 0.5 } }) } });
  const whole = await evaluate(yes, { scenario });
  assert.equal(whole.seats, { alice: 1, bob: 0.5 });
  const metrics = await evaluate(brittleIn([0]), { scenario });
  assert.equal([metrics.taskScore, metrics.seats], [(3 * 0.75) / 4, { alice: 0.75, bob: 0.375 }]);
});

test('what a partner or a judge refuses, or code of the scenario fails at, has no score', async () => {
  const team = { alice: yes, bob: brittleIn([2]) };
  const own = await evaluate(team);
  assert.equal([own.taskScore, own.n, own.failed, own.refused], [0.75, 4, 1, 1]);
  const { roles, protocol } = echo();
  const partner = echo({
    roles: { ...roles, bob: { ...roles.bob!, trained: false } } as Scenario<Numbered>['roles'],
  });
  const others: readonly [Partial<EvaluationPlan>, GenerativeModel | typeof team][] = [
    [{ scenario: partner }, team],
    [{ evaluated: ['alice'] }, team],
    [{ scenario: echo({ roles: { ...roles, bob: { sees: boom } } as Scenario<Numbered>['roles'] }) }, yes],
    [
      {
        scenario: echo({
          metric: { name: 'boom', score: (_prediction, _answers, { task }) => Number(boom(task) !== '') },
        }),
      },
      yes,
    ],
    [
      {
        scenario: echo({
          protocol: {
            ...protocol,
            next: (turns, dialogue) => {
              boom(dialogue.task);
              return protocol.next(turns, dialogue);
            },
          },
        }),
      },
      yes,
    ],
    [
      {
        scenario: echo({
          judge: {},
          metric: {
            name: 'asked',
            score: async (_prediction, _answers, { task, judge }) => Number(await judge.ask(`${task.n}`)),
          },
        }),
        judges: [
          {
            hash: yes.hash,
            generate: refusing(
              scriptedModel({ reply: () => '1' }),
              (id) => id.includes('00002') && 'too long',
            ).generate,
          },
        ],
      },
      yes,
    ],
  ];
  for (const [index, [change, models]] of others.entries()) {
    const { taskScore, n, failed, refused } = await evaluate(models, change);
    assert.equal([taskScore, n, failed, refused], [1, 3, 1, undefined], `${index}`);
  }
});

function boom({ n }: Numbered): string {
  if (n === 2) throw new Error('boom');
  return `${n}`;
}

test.run();
