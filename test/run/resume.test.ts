// One run meets a full disk, is killed in every kind of phase and resumed each time; it must end as the
// undisturbed one.
import type { ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { optima, smallRun, temporaryFolder, writeRandomCheckpoint } from './support.ts';

const folder = temporaryFolder('resume');
test.after(() => fs.rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
const undisturbed = path.join(folder, 'undisturbed');
const disturbed = path.join(folder, 'disturbed');

const train = ['train', 'two-hop-qa', '--model', model, ...smallRun, '--json', '--out'];
const logOf = (run: string) => path.join(run, 'events.jsonl');
const withoutTimes = (run: string) =>
  fs.readFileSync(logOf(run), 'utf8').replaceAll(/"at":"[^"]*"/g, '"at":""');
const summaryOf = (stdout: string) => JSON.parse(stdout.trim().split('\n').at(-1)!);

/** Sends a signal once the log holds the beginning of the phase and `lines` more. */
const atPhase =
  (run: string, phase: string, lines: number, signal: NodeJS.Signals) => (child: ChildProcess) => {
    const timer = setInterval(() => {
      if (child.exitCode !== null || child.signalCode !== null) return clearInterval(timer);
      if (!fs.existsSync(logOf(run))) return;
      const [, rest] = fs.readFileSync(logOf(run), 'utf8').split(`"type":"phase.started","phase":"${phase}"`);
      if (rest === undefined || rest.split('\n').length <= lines) return;
      clearInterval(timer);
      child.kill(signal);
    }, 1);
  };

test.before(async () => {
  await writeRandomCheckpoint(model);
});

test('a run ends with the summary of the contract', async () => {
  const { code, stdout, stderr } = await optima([...train, undisturbed]);
  assert.is(code, 0, stderr);
  const summary = summaryOf(stdout);
  assert.equal(Object.keys(summary), [
    'event',
    'scenario',
    'recipe',
    'seed',
    'base',
    'trained',
    'iterations',
    'seconds',
    'run',
    'policy',
  ]);
  assert.equal(Object.keys(summary.base), ['f1', 'exactMatch', 'tokens', 'agreement', 'turns', 'n']);
  assert.is(summary.trained.n, 4);
  assert.is(summary.iterations.length, 2);
  assert.ok(fs.existsSync(path.join(undisturbed, 'checkpoints', summary.policy, 'model.safetensors')));
  for (const line of stdout.trim().split('\n')) assert.type(JSON.parse(line).event, 'string');
});

test('a log that can grow no further is one clear line', async () => {
  const { code, stdout } = await optima([...train, disturbed], { limitKilobytes: 12 });
  assert.is(code, 1);
  assert.match(summaryOf(stdout).message, /^Cannot write .*events\.jsonl: it would grow beyond/);
});

test('killed in every phase and resumed, it ends in the same weights and the same log', async () => {
  const resume = ['train', '--resume', disturbed, '--json'];
  const kills = [
    ['base', 60, 'SIGKILL'],
    ['init-0/generate', 70, 'SIGKILL'],
    ['init-0/rank', 2, 'SIGKILL'],
    ['init-0/select', 0, 'SIGKILL'],
    ['isft-1/generate', 20, 'SIGINT'],
    ['isft-1/train', 2, 'SIGKILL'],
  ] as const;
  for (const [phase, lines, signal] of kills) {
    const ended = await optima(resume, { meet: atPhase(disturbed, phase, lines, signal) });
    assert.is(ended.code, signal === 'SIGINT' ? 130 : null, `${phase}: ${ended.stdout}${ended.stderr}`);
    if (signal === 'SIGINT') assert.match(summaryOf(ended.stdout).hint, `optima train --resume ${disturbed}`);
  }
  const { code, stdout, stderr } = await optima(resume);
  assert.is(code, 0, stdout + stderr);
  assert.is(withoutTimes(disturbed), withoutTimes(undisturbed));
  const [one, other] = [undisturbed, disturbed].map((run) => fs.readdirSync(path.join(run, 'checkpoints')));
  assert.equal(one, other);
  assert.is(
    fs.readFileSync(path.join(disturbed, 'metrics.jsonl'), 'utf8'),
    fs.readFileSync(path.join(undisturbed, 'metrics.jsonl'), 'utf8'),
  );
  assert.is(
    summaryOf(stdout).policy,
    JSON.parse(withoutTimes(undisturbed).trim().split('\n').at(-1)!).policy,
  );
});

test('a log that holds another event than the run arrives at is a divergence', async () => {
  const log = logOf(disturbed);
  const lines = fs.readFileSync(log, 'utf8').trimEnd().split('\n');
  // The last phase is taken up again: cut its end, and change what it had said.
  const from = lines.findLastIndex((line) => line.includes('"type":"phase.started"'));
  const cut = lines.slice(0, from + 8);
  cut[from + 4] = cut[from + 4]!.replace(/"(promptTokens|index)":\d+/, '"$1":9999');
  fs.writeFileSync(log, `${cut.join('\n')}\n`);
  const manifest = JSON.parse(fs.readFileSync(path.join(disturbed, 'manifest.json'), 'utf8'));
  manifest.phases.pop();
  fs.writeFileSync(path.join(disturbed, 'manifest.json'), JSON.stringify(manifest));
  const { code, stdout } = await optima(['train', '--resume', disturbed, '--json']);
  assert.is(code, 1);
  assert.is(summaryOf(stdout).code, 'run.diverged');
  assert.match(summaryOf(stdout).message, `events.jsonl:${from + 5}:`);
});

test('a run whose tasks or recipe are not what they were is not continued', async () => {
  const file = path.join(undisturbed, 'manifest.json');
  const text = fs.readFileSync(file, 'utf8');
  const refusal = async (change: (manifest: { scenario: object; recipe: object }) => object) => {
    fs.writeFileSync(file, JSON.stringify(change(JSON.parse(text))));
    const { code, stdout } = await optima(['train', '--resume', undisturbed, '--json']);
    assert.is(code, 1);
    return summaryOf(stdout);
  };
  const dealt = await refusal((manifest) => ({
    ...manifest,
    scenario: { ...manifest.scenario, tasks: 'x' },
  }));
  assert.is(dealt.code, 'run.diverged');
  assert.match(dealt.message, 'The tasks of "two-hop-qa"');
  const unknown = await refusal((manifest) => ({
    ...manifest,
    recipe: { ...manifest.recipe, keep: 'first' },
  }));
  assert.is(unknown.code, 'run.version');
  assert.match(unknown.message, 'its recipe, of version');
  assert.match(unknown.message, 'keep');
});

test.run();
