// The document of a study, from figures that are made up.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { RunResult } from '../../src/cli/results-document.ts';
import { type ConditionResult, type Study, studies, studyDocument } from '../../src/cli/study.ts';
import type { MachineFigures, MachineIteration } from '../../src/run/figures.ts';

const figures = (f1: number, tokens: number, change: Partial<MachineFigures> = {}): MachineFigures => ({
  f1,
  f1Interval: [f1 - 0.03, f1 + 0.03],
  exactMatch: f1,
  tokens,
  medianTokens: tokens - 2,
  p95Tokens: 2 * tokens,
  shortestRight: null,
  agreement: 0.95,
  turns: 3,
  n: 500,
  failed: 0,
  ...change,
});

const iteration = (index: number, f1: number, validation: MachineFigures | null): MachineIteration => ({
  iteration: index,
  kind: index === 0 ? 'init' : 'isft',
  generated: figures(f1, 100 * f1),
  sampledTokens: 10_000 * (index + 1),
  meanReward: 1,
  meanLoss: 0.5 + index / 4,
  edgeCases: { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 },
  kept: 40,
  loss: 0.5,
  figures: {},
  warnings: [],
  policy: 'p' as never,
  validation,
});

const run = (seed: number, trained: MachineFigures, iterations: readonly MachineIteration[]): RunResult => ({
  manifest: {
    scenario: { name: 'pages-qa:rare', file: '/x.ts', hash: 'h', tasks: 't' },
    preset: 'full',
    version: '0.1.0',
    engine: 'wasm',
    base: { folder: '/b', hash: 'ba5e' },
    seconds: 90,
    command: ['train', 'pages-qa:rare', '--seed', String(seed)],
  } as unknown as RunResult['manifest'],
  seed,
  base: figures(seed === 1 ? 0.2 : 0.3, 400),
  trained,
  iterations,
});

const [isft, , hybrid] = studies[0]!.conditions;
const study: Study = { ...studies[0]!, note: 'A note.' };
const results: readonly ConditionResult[] = [
  {
    condition: isft!,
    runs: [
      run(1, figures(0.7, 42, { shortestRight: 30 }), [
        iteration(0, 0.4, figures(0.5, 60)),
        iteration(1, 0.6, figures(0.7, 50)),
      ]),
      run(2, figures(0.8, 34, { shortestRight: 24 }), [
        iteration(0, 0.4, figures(0.6, 80)),
        iteration(1, 0.6, figures(0.8, 40)),
      ]),
    ],
  },
  {
    condition: hybrid!,
    runs: [
      run(1, figures(0.6, 60), [iteration(0, 0.4, null)]),
      run(2, figures(0.6, 60), [iteration(0, 0.5, null), iteration(1, 0.6, null)]),
    ],
  },
];
const { text, plots } = studyDocument(study, results, 'npx optima reproduce headline', 'results');
const row = (begin: string) => text.split('\n').find((line) => line.startsWith(begin));

test('the claim is held against the means of all seeds', () => {
  // 0.75 of 0.25, and 38 of 400 tokens; 0.6 of 0.25, and 60 of 400.
  assert.match(text, "iSFT reaches 3.00 times the base's F1 at 9.5 % of its tokens: holds.");
  assert.match(text, "iSFT-DPO reaches 2.40 times the base's F1 at 15.0 % of its tokens: falls short.");
});

test('a row has the means of a condition, an interval over all its tasks and its way to the shortest dialogue', () => {
  // Half of each interval is 0.03: over two seeds √(2 · 0.03²) / 2 = 0.021. Of 400 to 24 tokens, 362 are done at 38.
  assert.is(
    row('| iSFT |'),
    '| iSFT | 0.750 | 0.729–0.771 | 3.00 × | 38.0 | 36 | 76 | 9.5 % | 96.3 % | 95.0 % | 0.750 | 30 k |',
  );
  assert.is(
    row('| base |'),
    '| base | 0.250 | 0.229–0.271 | 1.00 × | 400.0 | 398 | 800 | 100.0 % | 0.0 % | 95.0 % | – | – |',
  );
  assert.match(text, 'has 24 tokens');
  assert.match(text, 'A note.');
});

test('every seed has a row of its own, and each condition its spread', () => {
  assert.is(
    row('| iSFT | 1 |'),
    '| iSFT | 1 | 0.200 | 0.700 (0.670–0.730) | 3.50 × | 400.0 | 42.0 | 10.5 % | 40 | 84 |',
  );
  assert.is(
    row('| iSFT | 2 |'),
    '| iSFT | 2 | 0.300 | 0.800 (0.770–0.830) | 2.67 × | 400.0 | 34.0 | 8.5 % | 32 | 68 |',
  );
  assert.is(row('| iSFT | sd |'), '| iSFT | sd |  | 0.071 |  |  | 5.7 |  |  |  |');
});

test('iterations are those on validation tasks, else of the dialogues before; some seeds may have fewer', () => {
  assert.match(text, '| team: F1 / tokens | 0 | 1 |');
  assert.match(text, '| iSFT | 0.550 / 70.0 | 0.750 / 45.0 |');
  assert.match(text, '| iSFT-DPO | 0.450 / 45.0 | 0.600 / 60.0 |');
});

test('plots lie where the document points to, and show what it tells', () => {
  assert.equal(
    [...plots.keys()],
    ['pages-qa-rare-score.svg', 'pages-qa-rare-tokens.svg', 'pages-qa-rare-frontier.svg'],
  );
  for (const file of plots.keys()) assert.match(text, `](results/${file})`);
  const [score, , frontier] = [...plots.values()];
  // Base and two iterations of either team; two seeds of each team, and the bases.
  const points = (svg: string) => svg.split('r="3.5"').length - 1;
  assert.equal([points(score!), points(frontier!)], [6, 6]);
  assert.match(frontier!, "10.0 % of the base's tokens");
});

test('a dialogue that failed counts as 0, and what has no quotient has a dash', () => {
  const broken = [
    {
      condition: isft!,
      runs: [
        {
          ...run(1, figures(0.9, 30, { n: 400, failed: 100 }), [iteration(0, 0.4, null)]),
          base: figures(0, 400),
        },
      ],
    },
  ];
  const { text } = studyDocument(study, broken, 'x', 'y');
  assert.match(text, '500 test tasks of each seed');
  assert.match(text, 'counts as 0 (100 did)');
  // Of the failed those that were refused are in the mean as 0 already.
  const [{ condition, runs }] = broken as [(typeof broken)[0]];
  const refused = { ...runs[0]!, trained: { ...figures(0.72, 30, { n: 460, failed: 100 }), refused: 60 } };
  const again = studyDocument(study, [{ condition, runs: [refused] }], 'x', 'y').text;
  assert.match(again, '500 test tasks of each seed');
  assert.match(again, '| iSFT | 0.662 |');
  assert.match(text, '| iSFT | 0.720 | 0.696–0.744 | – | 30.0 |');
  assert.match(text, "iSFT reaches – times the base's F1 at 7.5 % of its tokens: holds.");
  assert.match(text, 'has no number of tokens');
  assert.not.match(text, /NaN|Infinity|\| sd \|/);
});

test('a study that is no headline says so, and every one has conditions with names of their own', () => {
  assert.match(
    studyDocument({ ...study, name: 'extensions' }, results, 'x', 'y').text,
    /^# Results: extensions\n/,
  );
  assert.match(text, /^# Results\n/);
  for (const { conditions } of studies) {
    assert.is(new Set(conditions.map(({ name }) => name)).size, conditions.length);
  }
});

test.run();
