// From a draft to a team: what `optima new` writes is checked, and trained by the commands that it names.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { loadScenario } from '../../src/scenario/load.ts';
import { optimaHere, temporaryFolder, writeRandomCheckpoint } from '../support/run.ts';

const folder = temporaryFolder('new');
test.after(() => fs.rmSync(folder, { recursive: true }));
const run = (line: string) => optimaHere([...line.split(' '), '--json'], { folder });
const objects = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const brief = [
  'evaluation.tasks=4',
  'iterations=1',
  'initialization.tasks=8',
  'isft.tasks=4',
  'isft.samplesPerTask=6',
]
  .map((setting) => ` --set ${setting}`)
  .join('');

/** Gives a draft short messages: a model that was not warmed up says as little in long ones, and takes long about it. */
function shorten(file: string, name: string): void {
  const draft = path.join(folder, file);
  const text = fs.readFileSync(draft, 'utf8');
  fs.writeFileSync(draft, text.replace(`name: '${name}',`, '$& maxMessageTokens: 12,'));
}

test.before(async () => {
  await writeRandomCheckpoint(path.join(folder, 'random'));
});

for (const kind of ['information-exchange', 'debate', 'tools', 'team']) {
  test(`a draft of ${kind} is named, demonstrates itself, and has nothing wrong`, async () => {
    const [{ file, next }] = objects((await run(`new my-${kind} --kind ${kind}`)).stdout);
    const isOfShipped = kind === 'information-exchange';
    if (!isOfShipped) shorten(file, `my-${kind}`);
    const { scenario } = await loadScenario(path.join(folder, file));
    assert.is(scenario.name, `my-${kind}`);
    assert.type(scenario.demonstrate, 'function');
    assert.match(
      fs.readFileSync(path.join(folder, file), 'utf8'),
      new RegExp(`^// my-${kind}: [A-Za-z]`, 'u'),
    );
    assert.is(next[0], `check my-${kind}`);
    // The shipped model reads digits after a debate, and a team's only then.
    const warmups = next.filter((command: string) => command.startsWith('warmup '));
    const from = kind === 'team' ? ['models/tiny', 'models/digits'] : ['models/tiny'];
    assert.equal(
      warmups.map((command: string) => / --from (\S+) /.exec(command)![1]),
      isOfShipped ? [] : from,
    );
    const model = isOfShipped ? '' : ' --model random';
    const { code, stdout } = await run(next[0] + model);
    assert.is(code, 0, stdout);
    const found = objects(stdout).filter(({ event }) => event === 'finding');
    // Only that a random model does not speak it.
    assert.equal(
      found.map(({ check }) => check),
      model === '' ? [] : ['model'],
    );
    const page = objects(stdout).find(({ event }) => event === 'page');
    assert.is(page.answers[0].score, 1);
    assert.is(page.roles.length, kind === 'team' ? 3 : 2);
  });
}

test('the shipped model trains on the first draft at once', async () => {
  const { code, stdout, stderr } = await run(
    `train my-information-exchange --recipe isft${brief} --workers 0 --out run`,
  );
  assert.is(code, 0, stdout + stderr);
  const { base, trained, iterations } = objects(stdout).at(-1);
  assert.ok(base.tokens > 0 && trained.n === 4);
  assert.ok(
    iterations.every(({ kept }: { kept: number }) => kept > 0),
    JSON.stringify(iterations),
  );
});

test('another one is warmed up from it first, and train says so', async () => {
  const [{ file }] = objects((await run('new my-short --kind debate')).stdout);
  shorten(file, 'my-short');
  assert.is((await loadScenario(path.join(folder, file))).scenario.maxMessageTokens, 12);
  const cold = objects((await run('train my-short --workers 0')).stdout).at(-1);
  assert.is(cold.code, 'model.unready');
  assert.match(
    cold.hint,
    'npx optima warmup my-short --from models/tiny --out models/my-short; then train with --model models/my-short',
  );
  const warm = await run('warmup my-short --from models/tiny --steps 2 --workers 0');
  assert.is(warm.code, 0, warm.stdout + warm.stderr);
  const summary = objects(warm.stdout).at(-1);
  assert.equal([summary.out, summary.steps], [path.join('models', 'my-short'), 2]);
  const { echo } = JSON.parse(fs.readFileSync(path.join(folder, summary.out, 'training.json'), 'utf8'))
    .log[0];
  assert.is(echo, false, 'it can copy already');
});

test.run();
