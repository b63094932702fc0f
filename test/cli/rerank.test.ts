// `optima rerank` on the command line: its table, a task, the objects for machines, and what it refuses.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { presetRecipe } from '../../src/recipe/presets.ts';
import { applySettings } from '../../src/recipe/schema.ts';
import { hashFile } from '../../src/run/create-run.ts';
import { hashTasks } from '../../src/run/tasks.ts';
import { trainTeam } from '../../src/run/train.ts';
import { changeManifest, optimaHere, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';
import { spyOn, spyScenario } from '../support/spy.ts';

const root = temporaryFolder('rerank-cli');
test.after(() => fs.rmSync(root, { recursive: true }));
const run = path.join(root, 'run');
const file = path.join(root, 'spied.mjs');
const objects = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test.before(async () => {
  const model = path.join(root, 'model');
  await writeRandomCheckpoint(model, 'alice bob train validation test number well 0 1 2 3 4 5 6 7 8 9');
  const recipe = applySettings(presetRecipe('quick', 'idpo'), [
    ...['iterations=1', 'initialization.tasks=3', 'initialization.samplesPerTask=3', 'evaluation.tasks=1'],
    ...['initialization.thetaInit=0', 'search.tasks=2', 'search.expansions=2', 'search.pilotDialogues=2'],
    ...[
      'pairs.thetaFilter=-1',
      'pairs.thetaDiff=0',
      'eligible.repetition=true',
      'sft.epochs=1',
      'dpo.epochs=1',
    ],
  ]);
  const { training } = await spyOn({ folder: run, model, recipe });
  await trainTeam(training);
  training.run.close();
  const spies = new URL('../support/spy.ts', import.meta.url).href;
  fs.writeFileSync(file, `export { spyScenario as default } from ${JSON.stringify(spies)};\n`);
  const tasks = await hashTasks(spyScenario, recipe);
  changeManifest(run, () => ({ scenario: { name: 'spied', file, hash: hashFile(file), tasks } }));
});

test('the table has a row for each choice, with what flips', async () => {
  const { code, stdout, stderr } = await optimaHere(['rerank', run]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /init-0\/select +9 +0 +-?\d\.\d{3} +\d dialogues +0 +0\n/);
  assert.match(stdout, /idpo-1\/pair +12 +0 .* pairs +0 +0 +0\n/);
  const changed = await optimaHere(['rerank', run, '--set', 'lambdaToken=3', '--set', 'thetaInit=-5']);
  assert.match(changed.stdout, "reward.lambdaToken: 0.6 (the scenario's) → 3\n");
  assert.match(changed.stdout, 'initialization.thetaInit: 0 → -5\n');
  assert.match(changed.stdout, /init-0\/select +9 +9 +-?\d\.\d{3} → -?\d\.\d{3} /);
});

test('machines get the changes, each choice, each flip and the sums', async () => {
  const { stdout } = await optimaHere(['rerank', run, '--set', 'thetaInit=100,thetaFilter=100', '--json']);
  const lines = objects(stdout);
  const [begun, first] = lines;
  assert.is(begun.event, 'run');
  assert.equal(
    begun.changes.map(({ key }: { key: string }) => key),
    ['initialization.thetaInit', 'pairs.thetaFilter'],
  );
  assert.is(first.phase, 'init-0/select');
  assert.is(first.kept.after, 0);
  const flips = lines.filter(({ event }) => event === 'flip');
  assert.is(flips.length, lines.at(-1).flips);
  assert.ok(flips.every(({ chosen, pair }) => chosen === 'lost' || pair === 'lost'));
  assert.is(lines.at(-1).ranked, 21);
});

test('a task is shown before and after', async () => {
  const args = ['rerank', run, '--set', 'lambdaToken=0', '--task'];
  const { stdout } = await optimaHere([...args, 'train-00000']);
  assert.match(stdout, /\ninit-0\/select, train-00000\ndialogue +score .*\n0 .* → /);
  const searched = await optimaHere([...args, 'train-00003']);
  assert.match(searched.stdout, /pair after idpo-1\/search\/train-00003.*, by alice: value/);
  const unknown = await optimaHere([...args, 'train-00099']);
  assert.is(unknown.code, 2);
  assert.match(unknown.stderr, 'it has no task train-00099.');
});

test('what it cannot do is one line', async () => {
  const refused = await optimaHere(['rerank', run, '--set', 'initialization.temperature=1']);
  assert.is(refused.code, 2);
  assert.match(refused.stderr, /^error: --set initialization\.temperature=1: .* only a model can say/);
  assert.match((await optimaHere(['rerank', root])).stderr, 'is not a run folder');
  const text = fs.readFileSync(file, 'utf8');
  fs.appendFileSync(file, '// changed\n');
  const changed = await optimaHere(['rerank', run]);
  fs.writeFileSync(file, text);
  assert.match(changed.stderr, 'spied.mjs was changed since the run began.');
});

test.run();
