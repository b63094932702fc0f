// The figures of a run: folded from what its phases handed on, which policy is kept, and how machines read them.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PhaseKind, PhaseOutput, PhaseOutputOf } from '../../src/domain/events.ts';
import type { PolicyHash, TeamPolicy } from '../../src/domain/ids.ts';
import type { TeamMetrics } from '../../src/domain/metrics.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings } from '../../src/recipe/schema.ts';
import {
  choosePolicy,
  foldIterations,
  type IterationFigures,
  machineFigures,
  machineIteration,
  machinePolicy,
  metricsRows,
  type Outputs,
  swapPolicies,
} from '../../src/run/figures.ts';
import { planIterations, planRun } from '../../src/run/plan.ts';

const exchange = { kind: 'information-exchange' } as const;
const recipe = applySettings(presetRecipe('quick'), ['iterations=2', 'evaluation.validationTasks=7']);
const unvalidated = applySettings(recipe, ['evaluation.validationTasks=0']);

const metrics = (taskScore: number, tokens = 100 * taskScore): TeamMetrics => ({
  taskScore,
  taskScoreInterval: [taskScore - 0.25, taskScore + 0.25],
  // The other way round: it decides nothing.
  exactMatch: (1 - taskScore) / 2,
  tokens,
  medianTokens: tokens,
  p95Tokens: 2 * tokens,
  shortestRight: 24,
  agreement: 0.75,
  turns: 3,
  n: 50,
  failed: 2,
});
const team = (hash: string, other = hash): TeamPolicy => ({
  alice: hash as PolicyHash,
  bob: other as PolicyHash,
});
const cases = (turnCap: number) => ({ emptyMessage: 1, repetition: 2, cappedMessage: 3, turnCap });

const figuresOf = (number: number) => ({ 'rewards/margins': number / 4 });

/** What the phases of a run hand on: every figure of every phase is another one. */
function outputsOf(plan: ReturnType<typeof planRun>): Map<string, PhaseOutput> {
  const outputs = new Map<string, PhaseOutput>();
  for (const [index, { kind, name, iteration }] of plan.entries()) {
    const number = 10 * (iteration ?? 8);
    const output: { [Kind in PhaseKind]: PhaseOutputOf<Kind> } = {
      generate: { kind: 'generate', dialogues: 90 + number, failed: 1, sampledTokens: 1000 + number },
      rank: {
        kind: 'rank',
        ranked: 80 + number,
        failed: 2,
        meanReward: 0.5 + number,
        meanLoss: 0.75 + number,
        metrics: metrics(0.25 + number),
        edgeCases: cases(number),
      },
      select: { kind: 'select', kept: 40 + number, threshold: 0.7 },
      search: {
        kind: 'search',
        ...{
          trees: 9,
          dialogues: 70 + number,
          failed: 3,
          merged: 5,
          sampledTokens: 500,
          normaliser: 60,
          klToBase: 0.1,
        },
        ...{
          meanReward: 0.25 + number,
          meanLoss: 2 + number,
          metrics: metrics(0.125 + number),
          edgeCases: cases(1 + number),
        },
      },
      pair: { kind: 'pair', kept: 30 + number, found: 66, meanGap: 0.3 },
      train: {
        kind: 'train',
        steps: 5,
        loss: 1.5 + number,
        figures: figuresOf(number),
        warnings: [],
        policy: team(`trained-${iteration}`),
      },
      evaluate: { kind: 'evaluate', policy: team(`measured-${name}`), metrics: metrics(0.5 + index) },
    };
    outputs.set(name, output[kind]);
  }
  return outputs;
}

/** As a run folder, of outputs that are there. */
const outputsIn = (outputs: ReadonlyMap<string, PhaseOutput>): Outputs => ({
  outputOf: <Kind extends PhaseKind>({ name, kind }: { name: string; kind: Kind }) => {
    const output = outputs.get(name) ?? null;
    if (output !== null && output.kind !== kind)
      throw new OptimaError('run.corrupt', `${name}: not ${kind}.`);
    return output as PhaseOutputOf<Kind> | null;
  },
});

test('an iteration’s figures are those that its phases handed on', () => {
  const outputs = outputsIn(outputsOf(planRun(recipe, exchange)));
  const figures = foldIterations(outputs, planIterations(recipe, exchange));
  const expected = (index: number, kind: 'init' | 'isft', place: number): IterationFigures => ({
    iteration: index,
    kind,
    generated: metrics(0.25 + 10 * index),
    sampledTokens: 1000 + 10 * index,
    meanReward: 0.5 + 10 * index,
    meanLoss: 0.75 + 10 * index,
    edgeCases: cases(10 * index),
    kept: 40 + 10 * index,
    loss: 1.5 + 10 * index,
    figures: figuresOf(10 * index),
    warnings: [],
    policy: team(`trained-${index}`),
    validation: metrics(0.5 + place),
  });
  assert.equal(figures, [expected(0, 'init', 5), expected(1, 'isft', 10), expected(2, 'isft', 15)]);
});

test('without validation tasks an iteration has no validation, and is complete when it has trained', () => {
  const outputs = outputsIn(outputsOf(planRun(unvalidated, exchange)));
  const figures = foldIterations(outputs, planIterations(unvalidated, exchange));
  assert.equal(
    figures.map(({ iteration, validation }) => [iteration, validation]),
    [
      [0, null],
      [1, null],
      [2, null],
    ],
  );
});

/** How many iterations count when so many phases are done, from none on. */
function completed(from: typeof recipe): number[] {
  const plan = planRun(from, exchange);
  const whole = [...outputsOf(plan)];
  return plan.map((_, done) => {
    const outputs = outputsIn(new Map(whole.slice(0, done)));
    return foldIterations(outputs, planIterations(from, exchange)).length;
  });
}

test('only completed iterations count, however far the next one is', () => {
  assert.equal(completed(recipe), [...Array(6).fill(0), ...Array(5).fill(1), ...Array(5).fill(2), 3]);
  assert.equal(completed(unvalidated), [...Array(5).fill(0), ...Array(4).fill(1), ...Array(4).fill(2), 3]);
  const iterations = planIterations(recipe, exchange);
  const whole = outputsOf(planRun(recipe, exchange));
  // An iteration that found nothing to train on has a selection, and no figures; the run goes on to its end.
  const ended = new Map([...whole].filter(([name]) => name !== 'isft-2/train' && name !== 'isft-2/evaluate'));
  assert.equal(
    foldIterations(outputsIn(ended), iterations).map(({ iteration }) => iteration),
    [0, 1],
  );
});

test('the policy kept is the last, or the best on validation, cheaper on a tie, then earlier', () => {
  const scores: readonly (readonly [number, number])[] = [
    [0.6, 60],
    [0.7, 50],
    [0.7, 40],
    [0.7, 40],
    [0.65, 30],
  ];
  const iterations = scores.map(([score, tokens], index) => ({
    policy: team(`policy-${index}`),
    validation: metrics(score, tokens),
  }));
  assert.equal(choosePolicy(iterations, 'last'), team('policy-4'));
  assert.equal(choosePolicy(iterations, 'best-validation'), team('policy-2'));
  assert.equal(choosePolicy([...iterations].reverse(), 'best-validation'), team('policy-3'));
  assert.equal(choosePolicy(iterations.slice(0, 2), 'best-validation'), team('policy-1'));
  assert.equal(choosePolicy([iterations[1]!, iterations[0]!], 'best-validation'), team('policy-1'));
  assert.equal(choosePolicy(iterations.slice(0, 1), 'best-validation'), team('policy-0'));
  const unmeasured = iterations.map(({ policy }) => ({ policy, validation: null }));
  assert.equal(choosePolicy(unmeasured, 'last'), team('policy-4'));
});

test('a policy is held responsible for dialogues that failed', () => {
  const choose = (...validations: readonly TeamMetrics[]) =>
    choosePolicy(
      validations.map((validation, index) => ({ policy: team(`policy-${index}`), validation })),
      'best-validation',
    );
  const steady = { ...metrics(0.75), n: 4, failed: 0 };
  const brittle = { ...metrics(1), n: 1, failed: 3 };
  const hopeless = { ...metrics(0), n: 0, failed: 4 };
  assert.equal(choose(brittle, steady), team('policy-1'));
  assert.equal(choose({ ...metrics(1), n: 4, failed: 1 }, steady), team('policy-0'));
  assert.equal(choose(hopeless, brittle), team('policy-1'));
  // Those that score 0 are in the mean already; others count as 0 all the same.
  const refused = { ...metrics(0.5), n: 4, failed: 2, refused: 2 };
  assert.equal(choose({ ...metrics(0.45), n: 4, failed: 0 }, refused), team('policy-1'));
  assert.equal(choose({ ...metrics(0.45), n: 4, failed: 0 }, { ...refused, failed: 3 }), team('policy-0'));
  // As good, in fewer tokens: of what is broken off there are fewer.
  const shorter = { ...metrics(0.5, 10), n: 4, failed: 2, refused: 2 };
  assert.equal(choose({ ...metrics(0.5, 20), n: 4, failed: 0 }, shorter), team('policy-0'));
  assert.equal(choose(shorter, { ...metrics(0.5, 20), n: 4, failed: 0 }), team('policy-1'));
});

test('machines read the task score as f1, and everything else by its name', () => {
  assert.equal(machineFigures(metrics(0.5, 30)), {
    f1: 0.5,
    f1Interval: [0.25, 0.75],
    exactMatch: 0.25,
    tokens: 30,
    medianTokens: 30,
    p95Tokens: 60,
    shortestRight: 24,
    agreement: 0.75,
    turns: 3,
    n: 50,
    failed: 2,
  });
  assert.is(JSON.stringify(machineFigures(metrics(0.5))).slice(0, 32), '{"f1":0.5,"f1Interval":[0.25,0.7');
});

test('an iteration that searched has the figures of its roll-outs and of its pairs', () => {
  const hybrid = applySettings(presetRecipe('quick', 'isft-dpo'), ['iterations=2']);
  const outputs = outputsIn(outputsOf(planRun(hybrid, exchange)));
  const figures = foldIterations(outputs, planIterations(hybrid, exchange));
  assert.equal(
    figures.map(({ kind, kept, meanReward, meanLoss, generated, edgeCases, sampledTokens }) => ({
      ...{ kind, kept, meanReward, taskScore: generated.taskScore, turnCap: edgeCases.turnCap },
      ...{ sampledTokens, meanLoss },
    })),
    [
      {
        kind: 'init',
        kept: 40,
        meanReward: 0.5,
        taskScore: 0.25,
        turnCap: 0,
        sampledTokens: 1000,
        meanLoss: 0.75,
      },
      {
        kind: 'isft',
        kept: 50,
        meanReward: 10.5,
        taskScore: 10.25,
        turnCap: 10,
        sampledTokens: 1010,
        meanLoss: 10.75,
      },
      {
        kind: 'idpo',
        kept: 50,
        meanReward: 20.25,
        taskScore: 20.125,
        turnCap: 21,
        sampledTokens: 1520,
        meanLoss: 22,
      },
    ],
  );
});

test('a team of one policy is its hash, one of several is by role', () => {
  assert.is(machinePolicy(team('abc')), 'abc');
  assert.is(machinePolicy({ solo: 'abc' as PolicyHash }), 'abc');
  assert.equal(machinePolicy(team('abc', 'def')), { alice: 'abc', bob: 'def' });
  const three = { ...team('abc'), carol: 'def' as PolicyHash };
  assert.equal(machinePolicy(three), three);
  assert.equal(machinePolicy({}), {});
});

test('swapped, each role has the policy of the next one in order', () => {
  const [abc, def, ghi] = ['abc', 'def', 'ghi'] as PolicyHash[];
  assert.equal(swapPolicies({ alice: abc!, bob: def! }), { alice: def, bob: abc });
  assert.equal(swapPolicies({ zoe: abc!, bob: def!, carol: ghi! }), { zoe: def, bob: ghi, carol: abc });
});

test('an iteration for machines has its figures, its policy and its validation as they read them', () => {
  const figures: IterationFigures = {
    iteration: 1,
    kind: 'isft',
    generated: metrics(0.25),
    sampledTokens: 70,
    meanReward: 0.5,
    meanLoss: 0.75,
    edgeCases: cases(4),
    kept: 41,
    loss: 1.5,
    figures: figuresOf(1),
    warnings: ['too few pairs'],
    policy: team('abc'),
    validation: metrics(0.75),
  };
  const expected = {
    iteration: 1,
    kind: 'isft',
    generated: machineFigures(metrics(0.25)),
    sampledTokens: 70,
    meanReward: 0.5,
    meanLoss: 0.75,
    edgeCases: cases(4),
    kept: 41,
    loss: 1.5,
    figures: figuresOf(1),
    warnings: ['too few pairs'],
    policy: 'abc',
    validation: machineFigures(metrics(0.75)),
  };
  assert.equal(machineIteration(figures), expected);
  assert.equal(machineIteration({ ...figures, policy: team('abc', 'def'), validation: null }), {
    ...expected,
    policy: { alice: 'abc', bob: 'def' },
    validation: null,
  });
});

test('the rows of the metrics are the base’s, each iteration’s and the trained team’s, as far as there are any', () => {
  const plan = planRun(recipe, exchange);
  const iterations = planIterations(recipe, exchange);
  const whole = outputsOf(plan);
  const rows = metricsRows(outputsIn(whole), iterations);
  const folded = foldIterations(outputsIn(whole), iterations).map(machineIteration);
  assert.equal(rows, [
    { event: 'evaluation', phase: 'base', policy: 'measured-base', ...machineFigures(metrics(0.5)) },
    ...folded.map((figures) => ({ event: 'iteration', ...figures })),
    { event: 'evaluation', phase: 'trained', policy: 'measured-trained', ...machineFigures(metrics(16.5)) },
  ]);
  assert.is(rows.length, 5);
  // Rows are announced as they come: none that was there may move.
  for (let done = 0; done <= plan.length; done++) {
    const some = metricsRows(outputsIn(new Map([...whole].slice(0, done))), iterations);
    assert.equal(some, rows.slice(0, some.length), `${done} phases`);
  }
  assert.equal(metricsRows(outputsIn(new Map()), iterations), []);
  const perRole = applySettings(recipe, ['policies=per-role']);
  const outputs = outputsOf(planRun(perRole, exchange));
  assert.equal(metricsRows(outputsIn(outputs), planIterations(perRole, exchange)), [
    ...rows,
    { event: 'evaluation', phase: 'swapped', policy: 'measured-swapped', ...machineFigures(metrics(17.5)) },
  ]);
  const mixed: PhaseOutput = { kind: 'evaluate', policy: team('a', 'b'), metrics: metrics(0.5) };
  assert.equal(metricsRows(outputsIn(new Map([['base', mixed]])), iterations)[0]!.policy, team('a', 'b'));
});

test.run();
