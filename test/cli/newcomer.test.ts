// What a first run leaves for the commands after it: a policy with a name, and where it failed, why.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { evaluate } from '../../src/run/index.ts';
import {
  optimaHere,
  smallRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';

const folder = temporaryFolder('newcomer');
test.after(() => fs.rmSync(folder, { recursive: true }));
const at = (...parts: string[]) => path.join(folder, ...parts);
const run = (...args: string[]) => optimaHere([...args, '--json', '--workers', '0'], { folder });
const objects = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const scenario = 'two-hop-qa.mjs';
const train = ['train', scenario, '--model', 'model', ...smallRun, '--recipe', 'isft'];

test.before(async () => {
  await writeRandomCheckpoint(at('model'));
  writeSmallScenario(folder);
  const lookup = new URL('../../examples/lookup.ts', import.meta.url).href;
  fs.writeFileSync(at('lookup.mjs'), `export { default } from ${JSON.stringify(lookup)};\n`);
});

test('told to, a run goes on with a team that never scores, and says so before it and after it', async () => {
  const { code, stdout, stderr } = await run(...train, '--anyway', '--out', 'shared');
  assert.is(code, 0, stdout + stderr);
  const [engine, probe, began] = objects(stdout).filter(({ event }) => event !== 'stage');
  assert.equal([engine.event, probe.event, began.event], ['engine', 'probe', 'run']);
  assert.equal([probe.dialogues > 0, probe.right, typeof probe.unready], [true, 0, 'string']);
  assert.match(
    stderr,
    /^note: model does not speak "two-hop-qa": .* about \d+ min on two cores: npx optima warmup two-hop-qa\.mjs --from model --out models\/two-hop-qa; then train with --model models\/two-hop-qa\./,
  );
  assert.match(stderr, 'no dialogue of the trained team scored above 0');
  const selections = objects(stdout).filter(
    ({ stage, state }) => stage?.endsWith('/select') && state === 'done',
  );
  for (const { result } of selections) assert.match(result, /kept: no dialogue scored above 0$/);
  assert.is(selections.length, 2);
});

test('a run that is resumed is not looked at again', async () => {
  const { stdout, stderr } = await run('train', '--resume', 'shared');
  assert.ok(objects(stdout).every(({ event }) => event !== 'probe'));
  assert.not.match(stderr, 'does not speak');
});

test('--model takes a run for the policy that it ended with, which has a name', async () => {
  const final = at('shared', 'checkpoints', 'final');
  const { policy } = objects((await run('train', '--resume', 'shared')).stdout).at(-1);
  assert.is(fs.realpathSync(final), fs.realpathSync(at('shared', 'checkpoints', policy)));
  fs.renameSync(at('shared'), at('moved'));
  for (const named of ['moved', path.join('moved', 'checkpoints', 'final')]) {
    const { code, stdout, stderr } = await run(
      'eval',
      scenario,
      '--model',
      named,
      '--tasks',
      '1',
      '--max-tokens',
      '2',
    );
    assert.is(code, 0, stdout + stderr);
    assert.is(objects(stdout).at(-1).policy, policy);
  }
});

test('where each role has a policy, they are named by role', async () => {
  const { code, stdout, stderr } = await run(
    ...train,
    '--anyway',
    '--policies',
    'per-role',
    '--out',
    'roles',
  );
  assert.is(code, 0, stdout + stderr);
  const { policy } = objects(stdout).at(-1);
  for (const role of ['alice', 'bob']) {
    const link = at('roles', 'checkpoints', 'final', role);
    assert.is(fs.realpathSync(link), fs.realpathSync(at('roles', 'checkpoints', policy[role])));
  }
  const few = ['--tasks', '2', '--max-tokens', '3'];
  const evaluated = async (...args: string[]) => objects((await run('eval', ...args, ...few)).stdout).at(-1);
  const summary = await evaluated(scenario, '--model', 'roles');
  assert.equal(summary.policy, policy);
  const { metrics, trajectories } = await evaluate({
    scenario: at(scenario),
    ...{ models: at('roles'), tasks: 2, maxMessageTokens: 3, workers: 0 },
  });
  assert.is(metrics.tokens, summary.tokens);
  for (const { turns } of trajectories)
    for (const { speaker, policyHash } of turns) assert.is(policyHash, policy[speaker]);
  const swapped = await evaluated(scenario, '--model', 'roles', '--policy', 'bob=model');
  assert.equal([swapped.policy, Object.keys(swapped.partners)], [policy.alice, ['bob']]);
  assert.match((await evaluated('lookup.mjs', '--model', 'roles')).message, 'has a role visitor, and');
  const [error] = objects((await run('train', scenario, '--model', 'roles')).stdout);
  assert.is(error.code, 'usage');
  assert.match(error.hint, path.join('roles', 'checkpoints', policy.bob));
});

test('a module that replies is nothing to train, and nothing to count tokens with', async () => {
  fs.writeFileSync(at('reply.mjs'), 'export default () => "hm";\n');
  for (const command of ['train', 'check']) {
    const error = objects(
      (await optimaHere([command, scenario, '--model', 'reply.mjs', '--json'], { folder })).stdout,
    ).at(-1);
    assert.is(error.code, 'usage');
    assert.match(
      error.message,
      command === 'train'
        ? /^reply\.mjs: .* no weights that could be trained/
        : /^reply\.mjs: .* no tokenizer/,
    );
  }
});

test('a run that found nothing says so to results, to --model and to whoever reads it, with what helps', async () => {
  const nothing = ['--set', 'initialization.thetaInit=50', '--out', 'failed'];
  const ended = objects((await run(...train, '--anyway', ...nothing)).stdout).at(-1);
  assert.is(ended.code, 'selection.empty');
  assert.match(
    ended.hint,
    /^No dialogue scored above 0, and a lower threshold would train on wrong answers: warm/,
  );
  const { failure } = JSON.parse(fs.readFileSync(at('failed', 'manifest.json'), 'utf8'));
  assert.equal(failure, { code: ended.code, message: ended.message, hint: ended.hint });
  for (const args of [
    ['results', 'failed', '--out', 'results.md', '--json'],
    ['eval', scenario, '--model', 'failed', '--json'],
  ]) {
    const error = objects((await optimaHere(args, { folder })).stdout).at(-1);
    assert.is(error.code, 'run.missing');
    assert.match(error.message, ended.message);
    assert.is(error.hint, ended.hint);
  }
});

test('a wrong --model is found before the engine starts', async () => {
  for (const command of ['eval', 'chat', 'train']) {
    const { stdout } = await optimaHere([command, scenario, '--model', 'nowhere', '--json'], { folder });
    const [error, ...others] = objects(stdout);
    assert.equal([error.code, others], ['checkpoint.missing', []]);
    assert.match(error.message, /^--model nowhere: no such checkpoint folder/);
  }
});

test.run();
