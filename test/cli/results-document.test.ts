import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type RunResult, readResult, resultsDocument } from '../../src/cli/results-document.ts';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { PhaseKind } from '../../src/domain/events.ts';
import type { PolicyHash, RunId } from '../../src/domain/ids.ts';
import type { TeamMetrics } from '../../src/domain/metrics.ts';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { type MachineFigures, type MachineIteration, metricsRows } from '../../src/run/figures.ts';
import { planIterations } from '../../src/run/plan.ts';
import { emptyLog } from '../../src/store/event-log.ts';
import { formatVersion, type Manifest } from '../../src/store/manifest.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { temporaryFolder } from '../support/run.ts';

const root = temporaryFolder('results');
test.after(() => fs.rmSync(root, { recursive: true }));

const metrics = (f1: number, tokens: number): MachineFigures => ({
  f1,
  f1Interval: [f1 - 0.02, f1 + 0.02],
  exactMatch: f1,
  tokens,
  medianTokens: tokens - 3,
  p95Tokens: 2 * tokens,
  shortestRight: 24,
  agreement: 0.9,
  turns: 3,
  n: 500,
  failed: 0,
});

const iteration = (index: number, validation: MachineFigures | null): MachineIteration => ({
  iteration: index,
  kind: index === 0 ? 'init' : 'isft',
  generated: metrics(0.5, 80),
  sampledTokens: 9000,
  meanReward: 1,
  meanLoss: 0.6,
  edgeCases: { emptyMessage: 0, repetition: 0, cappedMessage: 0, turnCap: 0 },
  kept: 40,
  loss: 0.5,
  figures: {},
  warnings: [],
  policy: `policy-${index}` as PolicyHash,
  validation,
});

const teamMetrics = ({ f1, f1Interval, ...rest }: MachineFigures): TeamMetrics => ({
  taskScore: f1,
  taskScoreInterval: f1Interval,
  ...rest,
});

/** A run of which the log has the base's evaluation, an iteration and, if it is completed, the trained team's. */
async function writeRun(seed: number, trained: MachineFigures | null): Promise<string> {
  const folder = path.join(root, `run-${seed}`);
  const recipe = { ...presetRecipe('full'), seed };
  const manifest: Manifest = {
    format: formatVersion,
    version: '0.1.0',
    node: 'v20.19.0',
    run: `run-${seed}` as RunId,
    command: ['train', 'two-hop-qa', '--preset', 'full', '--seed', String(seed)],
    scenario: { name: 'two-hop-qa', file: '/x.ts', hash: 'h', tasks: 't' },
    preset: 'full',
    recipe,
    engine: 'wasm',
    base: { folder: '/base', hash: 'b' as PolicyHash },
    seconds: 100,
    log: emptyLog,
  };
  const run = RunFolder.create(folder, manifest, { now: () => 0 });
  run.record({ type: 'run.started', scenario: 'two-hop-qa', seed, base: manifest.base.hash, recipe });
  const evaluation = (name: string, hash: string, figures: MachineFigures) =>
    run.carryOut({ name, kind: 'evaluate' }, async () => ({
      kind: 'evaluate',
      policy: { alice: hash as PolicyHash, bob: hash as PolicyHash },
      metrics: teamMetrics(figures),
    }));
  await evaluation('base', 'b', metrics(0.3, 150));
  const { policy, loss, figures, warnings, kept, edgeCases, meanLoss, meanReward, sampledTokens, generated } =
    iteration(0, null);
  const outputs = [
    { kind: 'generate', dialogues: 400, failed: 0, sampledTokens },
    {
      kind: 'rank',
      ranked: 400,
      failed: 0,
      meanReward,
      meanLoss,
      metrics: teamMetrics(generated),
      edgeCases,
    },
    { kind: 'select', kept, threshold: null },
    {
      ...{ kind: 'train' as const, steps: 3, loss, figures, warnings },
      policy: { alice: policy as PolicyHash, bob: policy as PolicyHash },
    },
  ] as const;
  for (const output of outputs) {
    await run.carryOut<PhaseKind>({ name: `init-0/${output.kind}`, kind: output.kind }, async () => output);
  }
  await evaluation('init-0/evaluate', 'policy-0', metrics(0.6, 60));
  if (trained !== null) {
    await evaluation('trained', 'p', trained);
    run.record({ type: 'run.completed', policy: { alice: 'p' as PolicyHash, bob: 'p' as PolicyHash } });
  }
  const plan = planIterations(recipe, { kind: 'information-exchange' });
  run.writeMetrics(metricsRows(run, plan));
  run.close();
  return folder;
}

test('the document has a row for each seed, their mean and spread, and the commands', async () => {
  const runs = [await writeRun(2, metrics(0.7, 40)), await writeRun(1, metrics(0.8, 50))];
  const text = resultsDocument(runs.map(readResult), 'npx optima results …');
  assert.match(text, '## two-hop-qa, isft, preset `full`\n');
  assert.match(text, '| 1 | 0.300 (0.280–0.320) | 0.800 (0.780–0.820) | 2.67 × | 150.0 | 50.0 | 33.3 % |');
  assert.ok(text.indexOf('| 1 |') < text.indexOf('| 2 |'));
  assert.match(text, '| mean ± sd | 0.300 ± 0.000 | 0.750 ± 0.071 | 2.50 × | 150.0 ± 0.0 | 45.0 ± 7.1 |');
  assert.match(text, 'npx optima train two-hop-qa --preset full --seed 1\n');
  assert.match(text, '| 0 (init) | 0.500 | 80.0 | 90.0 % | 1.000 | 40 | 0.500 | 0.600 | 60.0 |');
});

test('a run that is not completed is refused with how to complete it', async () => {
  const folder = await writeRun(3, null);
  assert.throws(
    () => readResult(folder),
    (error: OptimaError) => error.code === 'run.missing' && error.hint!.includes('--resume'),
  );
});

const figures = (change: Partial<MachineFigures>): MachineFigures => ({ ...metrics(0.5, 80), ...change });

function result(seed: number, change: Partial<RunResult> = {}, manifest: Partial<Manifest> = {}): RunResult {
  return {
    seed,
    base: figures({ f1: 0.3, f1Interval: [0.25, 0.36], tokens: 150, agreement: 0.5, turns: 6.25 }),
    trained: figures({ f1: 0.6, f1Interval: [0.51, 0.69], tokens: 60, agreement: 0.925, turns: 2.5, n: 499 }),
    iterations: [iteration(0, null), { ...iteration(1, null), kept: 31, loss: 0.25, meanReward: 1.5 }],
    manifest: {
      format: formatVersion,
      version: '0.2.0',
      node: 'v20.19.0',
      run: `run-${seed}` as RunId,
      command: ['train', 'two-hop-qa', '--seed', String(seed)],
      scenario: { name: 'two-hop-qa', file: '/x.ts', hash: 'h', tasks: 't' },
      preset: 'quick',
      recipe: { ...presetRecipe('quick'), seed },
      engine: 'wasm, 2 threads',
      base: { folder: '/base', hash: 'b4se' as PolicyHash },
      seconds: 99.6,
      log: { events: 0, sum: '00000000' },
      ...manifest,
    },
    ...change,
  };
}

test('the document of one run is this text', () => {
  assert.is(
    resultsDocument([result(4)], 'npx optima results runs/x'),
    `# Results

Written by \`npx optima results runs/x\` from the run folders; not edited by hand. Test tasks, temperature 0, the same tasks before and after. The score is that of the scenario's metric, with its 95 % bootstrap interval over tasks; tokens, agreement and turns are means per dialogue.

## two-hop-qa, isft, preset \`quick\`

| seed | base score | trained score | ratio | base tokens | trained tokens | token share | agreement | turns | tasks |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 4 | 0.300 (0.250–0.360) | 0.600 (0.510–0.690) | 2.00 × | 150.0 | 60.0 | 40.0 % | 50.0 % → 92.5 % | 6.25 → 2.50 | 499 |

Iterations, means over the seeds. Figures of the dialogues are from training tasks, sampled before the iteration trained.

| iteration | score | tokens | agreement | reward | kept | loss | validation score | tokens |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 0 (init) | 0.500 | 80.0 | 90.0 % | 1.000 | 40 | 0.500 | – | – |
| 1 (isft) | 0.500 | 80.0 | 90.0 % | 1.500 | 31 | 0.250 | – | – |

Base \`b4se\`, optima-actors 0.2.0, engine: wasm, 2 threads. Made with:

\`\`\`sh
npx optima train two-hop-qa --seed 4
\`\`\`

Seconds of work: seed 4: 100.

`,
  );
});

test('seeds are averaged: figures, their spread, the ratio of means, iterations that not all runs have', () => {
  const second = result(2, {
    base: figures({ f1: 0.5, tokens: 100 }),
    trained: figures({ f1: 0.8, tokens: 20 }),
    iterations: [
      {
        ...iteration(0, figures({ f1: 0.8, tokens: 33 })),
        generated: figures({ f1: 0.7, tokens: 40, agreement: 0.3 }),
        meanReward: 2,
        kept: 60,
        loss: 0.1,
      },
    ],
  });
  const lines = resultsDocument([result(10), second], 'x').split('\n');
  const line = (start: string) => lines.find((text) => text.startsWith(start));
  // Shares of 40 % and 20 %; 0.7 / 0.4 is not the mean of 2 and 1.6.
  assert.is(
    line('| mean'),
    '| mean ± sd | 0.400 ± 0.141 | 0.700 ± 0.141 | 1.75 × | 125.0 ± 35.4 | 40.0 ± 28.3 | 30.0 ± 14.1 % |  |  |  |',
  );
  assert.is(line('| 0 (init)'), '| 0 (init) | 0.600 | 60.0 | 60.0 % | 1.500 | 50 | 0.300 | 0.800 | 33.0 |');
  assert.is(line('| 1 (isft)'), undefined, 'the rows are those of the first seed');
  assert.ok(lines.indexOf(line('| 2 |')!) < lines.indexOf(line('| 10 |')!), 'seeds in the order of numbers');
  assert.is(line('Seconds'), 'Seconds of work: seed 2: 100, seed 10: 100.');
  const reversed = resultsDocument([result(1), { ...second, seed: 3 }], 'x');
  assert.match(reversed, '| 1 (isft) | 0.500 | 80.0 | 90.0 % | 1.500 | 31 | 0.250 | – | – |');
});

test('a base that never scores has no ratio', () => {
  assert.match(
    resultsDocument([result(1, { base: figures({ f1: 0, tokens: 60 }) })], 'x'),
    '| 0.600 (0.510–0.690) | – | 60.0 | 60.0 | 100.0 % |',
  );
});

test('runs of another scenario, preset or recipe have a section of their own, which says what differs', () => {
  const recipe = presetRecipe('quick');
  const scenario = { name: 'debate', file: '/y.ts', hash: 'h', tasks: 't' };
  const text = resultsDocument(
    [
      result(1),
      result(2, {}, { scenario }),
      result(3, {}, { preset: 'full', recipe: { ...presetRecipe('full'), seed: 3 } }),
      result(4, {}, { recipe: { ...recipe, seed: 4, isft: { ...recipe.isft, tasks: 7 }, concurrency: 8 } }),
      result(5),
    ],
    'x',
  );
  assert.equal(
    text.split('\n').filter((line) => line.startsWith('## ')),
    [
      '## two-hop-qa, isft, preset `quick`',
      '## debate, isft, preset `quick`',
      '## two-hop-qa, isft, preset `full`',
      '## two-hop-qa, isft, preset `quick` with `isft.tasks=7`, `concurrency=8`',
    ],
  );
  assert.match(
    text.split('## ')[1]!,
    'npx optima train two-hop-qa --seed 1\nnpx optima train two-hop-qa --seed 5\n',
  );
});

test('a result is what the log of the folder says', async () => {
  const read = readResult(await writeRun(6, metrics(0.8, 50)));
  assert.is(read.seed, 6);
  assert.is(read.manifest.run, 'run-6');
  assert.equal(read.base, metrics(0.3, 150));
  assert.equal(read.trained, metrics(0.8, 50));
  assert.equal(read.iterations, [iteration(0, metrics(0.6, 60))]);
});

test('metrics that cannot be read, or are not what the log says, are named with their line', async () => {
  const folder = await writeRun(7, metrics(0.8, 50));
  const file = path.join(folder, 'metrics.jsonl');
  const text = fs.readFileSync(file, 'utf8');
  const failure = () => {
    try {
      readResult(folder);
    } catch (error) {
      return error as OptimaError;
    }
    throw new Error('Nothing was thrown.');
  };
  for (const [line, changed] of [
    [1, text.replace('0.3', '0.4')],
    [3, text.replace('0.8', '0.9')],
    [4, `${text}{"event":\n`],
    [3, text.slice(0, text.lastIndexOf('{'))],
    [1, ''],
  ] as const) {
    fs.writeFileSync(file, changed);
    assert.is(failure().code, 'run.corrupt');
    assert.is(failure().message, `${file}:${line}: not what the run's log says.`);
    assert.match(failure().hint!, 'train --resume');
  }
  fs.rmSync(file);
  assert.is(failure().message, `Cannot read ${file}: no such file or folder.`);
});

test.run();
