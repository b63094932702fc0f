import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash, RunId } from '../../src/domain/ids.ts';
import type { TeamMetrics } from '../../src/domain/metrics.ts';
import { choosePolicy, type IterationFigures } from '../../src/run/iterations.ts';
import { formatVersion, type Manifest, writeManifest } from '../../src/run/manifest.ts';
import { presetRecipe } from '../../src/run/presets.ts';
import { readResult, resultsDocument } from '../../src/run/results.ts';
import { temporaryFolder } from './support.ts';

const root = temporaryFolder('results');
test.after(() => fs.rmSync(root, { recursive: true }));

const metrics = (f1: number, tokens: number): TeamMetrics => ({
  f1,
  f1Interval: [f1 - 0.02, f1 + 0.02],
  exactMatch: f1,
  tokens,
  agreement: 0.9,
  turns: 3,
  n: 500,
  failed: 0,
});

const iteration = (index: number, validation: TeamMetrics | null): IterationFigures => ({
  iteration: index,
  kind: index === 0 ? 'init' : 'isft',
  generated: metrics(0.5, 80),
  meanReward: 1,
  edgeCases: {},
  kept: 40,
  loss: 0.5,
  policy: `policy-${index}` as PolicyHash,
  validation,
});

function writeRun(seed: number, trained: TeamMetrics | null): string {
  const folder = path.join(root, `run-${seed}`);
  fs.mkdirSync(folder);
  const manifest: Manifest = {
    format: formatVersion,
    version: '0.1.0',
    node: 'v20.19.0',
    run: `run-${seed}` as RunId,
    command: ['train', 'two-hop-qa', '--preset', 'full', '--seed', String(seed)],
    scenario: { name: 'two-hop-qa', file: '/x.ts', hash: 'h', tasks: 't' },
    preset: 'full',
    recipe: { ...presetRecipe('full'), seed },
    engine: 'wasm',
    base: { folder: '/base', hash: 'b' as PolicyHash },
    seconds: 100,
    phases: [],
  };
  writeManifest(folder, manifest);
  const rows = [
    { event: 'evaluation', phase: 'base', policy: 'b', ...metrics(0.3, 150) },
    { event: 'iteration', ...iteration(0, metrics(0.6, 60)) },
    ...(trained === null ? [] : [{ event: 'evaluation', phase: 'trained', policy: 'p', ...trained }]),
  ];
  fs.writeFileSync(
    path.join(folder, 'metrics.jsonl'),
    rows.map((row) => `${JSON.stringify(row)}\n`).join(''),
  );
  return folder;
}

test('the document has a row for each seed, their mean and spread, and the commands', () => {
  const runs = [writeRun(2, metrics(0.7, 40)), writeRun(1, metrics(0.8, 50))];
  const text = resultsDocument(runs.map(readResult), 'npx optima results …');
  assert.match(text, '## two-hop-qa, preset `full`\n');
  assert.match(text, '| 1 | 0.300 (0.280–0.320) | 0.800 (0.780–0.820) | 2.67 × | 150.0 | 50.0 | 33.3 % |');
  assert.ok(text.indexOf('| 1 |') < text.indexOf('| 2 |'));
  assert.match(text, '| mean ± sd | 0.300 ± 0.000 | 0.750 ± 0.071 | 2.50 × | 150.0 ± 0.0 | 45.0 ± 7.1 |');
  assert.match(text, 'npx optima train two-hop-qa --preset full --seed 1\n');
  assert.match(text, '| 0 (init) | 0.500 | 80.0 | 90.0 % | 1.000 | 40 | 0.500 | 0.600 | 60.0 |');
});

test('a run that is not completed is refused with how to complete it', () => {
  const folder = writeRun(3, null);
  assert.throws(
    () => readResult(folder),
    (error: OptimaError) => error.code === 'run.missing' && error.hint!.includes('--resume'),
  );
});

test('the policy kept is the last, or the best on validation, cheaper on a tie, then earlier', () => {
  const iterations = [
    iteration(0, metrics(0.6, 60)),
    iteration(1, metrics(0.7, 50)),
    iteration(2, metrics(0.7, 40)),
    iteration(3, metrics(0.7, 40)),
    iteration(4, metrics(0.65, 30)),
  ];
  assert.is(choosePolicy(iterations, 'last'), 'policy-4');
  assert.is(choosePolicy(iterations, 'best-validation'), 'policy-2');
});

test.run();
