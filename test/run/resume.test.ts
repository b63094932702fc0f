// One run meets a full disk, is killed in every kind of phase and resumed each time, with as many workers as may be; it
// must end as the undisturbed one, which had none.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { MessageOf } from '../../src/domain/messages.ts';
import { compressLog } from '../../src/store/compress.ts';
import { type Manifest, readManifest, writeManifest } from '../../src/store/manifest.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { goOn, isAppend, killAnywhere, labelOf, type Moment, outcomeOf, stateOf } from '../support/crash.ts';
import {
  type Ended,
  eventsIn,
  optima,
  optimaHere,
  replaceLog,
  smallHybridRun,
  temporaryFolder,
  writeRandomCheckpoint,
  writeSmallScenario,
} from '../support/run.ts';

const folder = temporaryFolder('resume');
test.after(() => fs.rmSync(folder, { recursive: true }));
const model = path.join(folder, 'model');
const undisturbed = path.join(folder, 'undisturbed');
const disturbed = path.join(folder, 'disturbed');
const states = path.join(folder, 'states');
/** Where the undisturbed run could have been killed, of which `states` has what would have been left. */
const chosen: Moment[] = [];

// JavaScript: no process has to check its types.
const scenario = writeSmallScenario(folder);
const train = ['train', scenario, '--model', model, ...smallHybridRun, '--json', '--workers', '0', '--out'];
const logOf = (run: string) => path.join(run, 'events.jsonl');
const withoutTimes = (run: string) =>
  fs.readFileSync(logOf(run), 'utf8').replaceAll(/"at":"[^"]*"/g, '"at":""');
const summaryOf = (stdout: string) => JSON.parse(stdout.trim().split('\n').at(-1)!);

/** Where a process is to be ended: when it has done in the phase what is named here, by `kill-at.mjs`. */
interface Place {
  readonly phase: string;
  /** So many lines of the phase are in the log, behind its first one. */
  readonly lines?: number;
  /** And half of the next one. */
  readonly halfLine?: boolean;
  /** The checkpoint has been moved to its place. */
  readonly renamed?: boolean;
  readonly signal: 'SIGKILL' | 'SIGINT';
  readonly workers: number;
}

/** Resumes the run, lets it be ended at the place, and makes sure that it was there. */
async function endAt(run: string, place: Place) {
  const { phase, lines, halfLine = false, renamed = false, signal, workers } = place;
  const shelf = path.join(run, 'checkpoints');
  const checkpoints = () => (fs.existsSync(shelf) ? fs.readdirSync(shelf) : []);
  const saved = renamed ? checkpoints().length : 0;
  const ended = await optima(['train', '--resume', run, '--json', '--workers', `${workers}`], {
    preload: new URL('kill-at.mjs', import.meta.url).href,
    env: { KILL_AT: JSON.stringify({ ...place, log: logOf(run) }) },
  });
  const what = `${JSON.stringify(place)}: ${ended.stdout}${ended.stderr}`;
  assert.is(ended.signal, signal === 'SIGKILL' ? 'SIGKILL' : null, what);
  const written = fs.readFileSync(logOf(run), 'utf8').split('\n');
  const rest = written.pop()!;
  const events = written.map((line) => JSON.parse(line));
  const from = events.findLastIndex(({ type }) => type === 'phase.started');
  assert.is(events[from].phase, phase, what);
  assert.not.ok(
    events.slice(from).some(({ type }) => type === 'phase.completed'),
    `the phase is over: ${what}`,
  );
  assert.is(rest.length > 0, halfLine, 'half a line');
  // A process that is interrupted goes on to the end of its step.
  if (signal === 'SIGINT') assert.ok(events.length - from - 1 >= lines!, what);
  else if (lines !== undefined) assert.is(events.length - from - 1, lines, what);
  if (renamed) {
    assert.is(checkpoints().length, saved + 1, what);
    assert.not.ok(checkpoints().includes('partial'), what);
  }
  return ended;
}

test.before(async () => {
  await writeRandomCheckpoint(model);
});

test('a run ends with the summary of the contract', async () => {
  let phase = '';
  const seen = new Set<string>();
  // The first of each kind of operation, and on each file where it may leave a part, from the preference training on; and of the
  // lines of its search.
  const isChosen = (moment: Moment) => {
    phase = /"phase.started","phase":"([^"]+)"/.exec(moment.text)?.[1] ?? phase;
    const isSearch = phase === 'idpo-2/search' && isAppend(moment);
    if (!isSearch && !/^(idpo-2\/(train|validate)|trained)$/.test(phase)) return false;
    const byFile = moment.half || moment.kind === 'rename';
    const file = moment.file.startsWith('checkpoints') ? 'checkpoint' : moment.file;
    const kind = `${isSearch} ${moment.kind} ${moment.half} ${byFile && file}`;
    const isNew = !seen.has(kind);
    if (isNew) chosen.push(moment);
    seen.add(kind);
    return isNew;
  };
  let ended: Ended | undefined;
  const work = async () => {
    ended = await optimaHere([...train, undisturbed]);
  };
  await killAnywhere(undisturbed, work, states, isChosen);
  const { code, stdout, stderr } = ended!;
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
  assert.equal(Object.keys(summary.base), [
    'f1',
    'exactMatch',
    'tokens',
    'medianTokens',
    'p95Tokens',
    'agreement',
    'turns',
    'n',
  ]);
  assert.is(summary.trained.n, 4);
  assert.is(summary.iterations.length, 3);
  assert.ok(fs.existsSync(path.join(undisturbed, 'checkpoints', summary.policy, 'model.safetensors')));
  for (const line of stdout.trim().split('\n')) assert.type(JSON.parse(line).event, 'string');

  // What it said that it would hold is what it held.
  const planned = stdout.match(/^.*"event":"plan".*$/m)!;
  const plan = JSON.parse(planned[0]);
  const held = withoutTimes(undisturbed).match(/"type":"dialogue.closed"/g)!.length;
  assert.is(plan.dialogues, held);
  const sum = plan.phases.reduce((all: number, { dialogues }: { dialogues: number }) => all + dialogues, 0);
  assert.is(sum, held);
  const estimate = JSON.parse(stdout.match(/^.*"event":"estimate".*$/m)![0]);
  assert.is(estimate.dialogues, held - 4);
  assert.is(estimate.tokens, Math.round((held - 4) * summary.base.tokens));
  assert.ok(estimate.seconds >= 0);

  // Scores are called f1, one policy is one hash, here and in the metrics of the run.
  const rows = fs
    .readFileSync(path.join(undisturbed, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const printed = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(
    printed.filter(({ event }) => event === 'evaluation' || event === 'iteration'),
    rows,
  );
  assert.equal(
    rows.map(({ event, phase, iteration }) => [event, phase ?? iteration]),
    [
      ['evaluation', 'base'],
      ['iteration', 0],
      ['iteration', 1],
      ['iteration', 2],
      ['evaluation', 'trained'],
    ],
  );
  const figures = ({
    f1,
    exactMatch,
    tokens,
    medianTokens,
    p95Tokens,
    agreement,
    turns,
    n,
  }: Record<string, number>) =>
    Object.entries({ f1, exactMatch, tokens, medianTokens, p95Tokens, agreement, turns, n });
  assert.equal(Object.entries(summary.base), figures(rows[0]));
  assert.equal(Object.entries(summary.trained), figures(rows[4]));
  assert.equal(
    summary.iterations.map((one: object) => ({ event: 'iteration', ...one })),
    rows.slice(1, 4),
  );
  for (const { policy } of [...rows, summary]) assert.match(policy, /^[0-9a-f]{16}$/);
  assert.is(summary.policy, rows[4].policy);
  assert.ok(rows.every((row) => !JSON.stringify(row).includes('taskScore')));
  const results = await optimaHere(['results', undisturbed, '--out', 'results.md'], { folder });
  assert.is(results.code, 0, results.stderr);
  assert.match(
    fs.readFileSync(path.join(folder, 'results.md'), 'utf8'),
    `| 1 | ${rows[0].f1.toFixed(3)} (${rows[0].f1Interval[0].toFixed(3)}–`,
  );
});

test('killed before any kind of operation on its files, or in the middle of one, it ends as the undisturbed one', async () => {
  const kinds = new Set(chosen.map(({ kind, half }) => `${kind}${half ? ' half' : ''}`));
  for (const kind of ['open', 'write', 'write half', 'flush', 'rename', 'mkdir', 'link']) {
    assert.ok(kinds.has(kind), `${kind} of ${[...kinds]}`);
  }
  const expected = outcomeOf(undisturbed);
  for (const moment of chosen) {
    const run = stateOf(states, moment);
    const { code, stdout } = await goOn(run, train.slice(0, -1));
    assert.is(code, 0, `${labelOf(moment)}: ${stdout}`);
    assert.is(outcomeOf(run), expected, labelOf(moment));
  }
});

test('a log that can grow no further is one clear line', async () => {
  const { code, stdout } = await optima([...train, disturbed], { limitKilobytes: 12 });
  assert.is(code, 1);
  assert.match(summaryOf(stdout).message, /^Cannot write .*events\.jsonl: it would grow beyond/);
});

test('killed in every kind of phase and resumed, it ends in the same weights and the same log', async () => {
  const places: readonly Place[] = [
    { phase: 'init-0/generate', lines: 35, signal: 'SIGKILL', workers: 1 },
    { phase: 'isft-1/generate', lines: 20, signal: 'SIGINT', workers: 1 },
    { phase: 'isft-1/train', renamed: true, signal: 'SIGKILL', workers: 0 },
    { phase: 'idpo-2/search', lines: 80, halfLine: true, signal: 'SIGKILL', workers: 2 },
    { phase: 'idpo-2/train', lines: 2, signal: 'SIGKILL', workers: 1 },
  ];
  for (const place of places) {
    const { code, stdout } = await endAt(disturbed, place);
    if (place.signal !== 'SIGINT') continue;
    assert.is(code, 130);
    assert.match(summaryOf(stdout).hint, `optima train --resume ${disturbed}`);
  }
  const { code, stdout, stderr } = await optimaHere([
    'train',
    '--resume',
    disturbed,
    '--json',
    '--workers',
    '0',
  ]);
  assert.is(code, 0, stdout + stderr);
  assert.is(withoutTimes(disturbed), withoutTimes(undisturbed));
  const [one, other] = [undisturbed, disturbed].map((run) => fs.readdirSync(path.join(run, 'checkpoints')));
  assert.equal(one, other);
  assert.is(
    fs.readFileSync(path.join(disturbed, 'metrics.jsonl'), 'utf8'),
    fs.readFileSync(path.join(undisturbed, 'metrics.jsonl'), 'utf8'),
  );
  const { policy } = summaryOf(stdout);
  const last = JSON.parse(withoutTimes(undisturbed).trim().split('\n').at(-1)!);
  assert.equal(last.policy, { alice: policy, bob: policy });
});

test('a run that is done is not done with a checkpoint that was damaged since', async () => {
  const shelf = path.join(undisturbed, 'checkpoints');
  const { policy } = RunFolder.read(undisturbed);
  const file = path.join(shelf, policy!.alice!, 'model.safetensors');
  const whole = fs.readFileSync(file);
  const damaged = Buffer.from(whole);
  damaged[damaged.length - 7]! ^= 0x40;
  fs.writeFileSync(file, damaged);
  const resume = ['train', '--resume', undisturbed, '--json', '--workers', '0'];
  const { code, stdout } = await optimaHere(resume);
  assert.is(code, 1);
  assert.is(summaryOf(stdout).code, 'checkpoint.invalid');
  assert.match(summaryOf(stdout).message, `checkpoints/${policy!.alice}: it has the hash`);
  fs.writeFileSync(file, whole);
  assert.is((await optimaHere(resume)).code, 0);
});

test('a run that is done, and compressed since, comes to what it came to, and the doctor finds nothing wrong', async () => {
  const packed = path.join(folder, 'packed');
  fs.cpSync(undisturbed, packed, { recursive: true, verbatimSymlinks: true });
  await compressLog(packed);
  assert.not.ok(fs.existsSync(logOf(packed)));
  const comesTo = async (run: string) => {
    const resumed = await optimaHere(['train', '--resume', run, '--json', '--workers', '0']);
    const results = await optimaHere(['results', run, '--json']);
    return [resumed, results].map(({ stdout }) => ({
      ...summaryOf(stdout.replaceAll(run, 'run')),
      seconds: 0,
    }));
  };
  assert.equal(await comesTo(packed), await comesTo(undisturbed));
  const { code, stdout } = await optimaHere(['doctor', packed, '--json']);
  assert.is(code, 0, stdout);
  assert.equal(
    fs.readdirSync(packed).filter((name) => name.startsWith('events')),
    ['events.jsonl.gz'],
  );
});

test('a log that holds another event than the run arrives at is a divergence', async () => {
  const events = eventsIn(disturbed);
  // The last phase is taken up again: cut its end, and change what it had said.
  const from = events.findLastIndex(({ type }) => type === 'phase.started');
  const said = events.findIndex(({ type }, index) => index > from && type === 'turn.taken');
  const cut = events.slice(0, said + 3);
  const { turn, ...spoken } = cut[said] as MessageOf<'turn.taken'>;
  cut[said] = { ...spoken, turn: { ...turn, promptTokens: 9999 } };
  replaceLog(disturbed, cut);
  const { code, stdout } = await optimaHere(['train', '--resume', disturbed, '--json', '--workers', '0']);
  assert.is(code, 1);
  assert.is(summaryOf(stdout).code, 'run.diverged');
  assert.match(summaryOf(stdout).message, `events.jsonl:${said + 1}:`);
});

test('a run whose tasks or recipe are not what they were is not continued', async () => {
  const began = readManifest(undisturbed);
  const refusal = async (change: Partial<Manifest>) => {
    writeManifest(undisturbed, { ...began, ...change });
    const { code, stdout } = await optimaHere(['train', '--resume', undisturbed, '--json', '--workers', '0']);
    assert.is(code, 1);
    return summaryOf(stdout);
  };
  const dealt = await refusal({ scenario: { ...began.scenario, tasks: 'x' } });
  assert.is(dealt.code, 'run.diverged');
  assert.match(dealt.message, 'The tasks of "two-hop-qa"');
  const unknown = await refusal({ recipe: { ...began.recipe, keep: 'first' } });
  assert.is(unknown.code, 'run.version');
  assert.match(unknown.message, 'its recipe, of version');
  assert.match(unknown.message, 'keep');
});

test.run();
