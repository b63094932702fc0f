// show, tree, runs and doctor, on a run that nobody trained.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { writeSyntheticRun } from '../../bench/synthetic-run.ts';
import { systemClock } from '../../src/domain/clock.ts';
import type { RunEvent, RunEventOf } from '../../src/domain/events.ts';
import { childId, type DialogueId, type NodeId, type TaskId } from '../../src/domain/ids.ts';
import type { Turn } from '../../src/domain/transcript.ts';
import { RunReader } from '../../src/reading/index.ts';
import { holdDialogue, scriptedModel } from '../../src/run/index.ts';
import { appendForks } from '../../src/store/fork-log.ts';
import { readManifest, writeManifest } from '../../src/store/manifest.ts';
import { readEvents } from '../../src/store/read-events.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { eventsIn, launcher, optimaHere, replaceLog, temporaryFolder } from '../support/run.ts';
import { longEvents, writeRun } from '../viewer/hand-made-run.ts';

const folder = temporaryFolder('looking');
test.after(() => fs.rmSync(folder, { recursive: true }));
const runs = path.join(folder, 'runs');
const run = path.join(runs, 'made-up');
/** A tree that was searched. */
let tree: string;
const objects = (stdout: string) =>
  stdout
    .trim()
    .split('\n')
    .map((text) => JSON.parse(text));
const copyOf = (name: string) => {
  fs.cpSync(run, path.join(runs, name), { recursive: true });
  return path.join(runs, name);
};

test.before(() => {
  writeSyntheticRun(run, 6000);
  const reader = RunReader.open(run);
  tree = [...reader.trees({ phase: 'idpo-1/search' })][3]!.root;
  reader.close();
});

test('show tells what happened in a page, and one dialogue or turn to read', async () => {
  const { code, stdout, stderr } = await optimaHere(['show', run]);
  assert.is(code, 0, stderr);
  assert.match(stdout, /^synthetic · idpo, preset quick, seed 1 · completed\n\d+ events, /);
  for (const name of ['base', 'init-0/generate', 'idpo-1/search', 'trained'])
    assert.match(stdout, `\n${name} `);
  assert.match(stdout, /── best of idpo-1\/search: .*reward/);
  assert.match(stdout, /── worst of idpo-1\/search: /);
  const told = objects((await optimaHere(['show', run, '--json'])).stdout);
  assert.equal(
    [...new Set(told.map(({ event }) => event))],
    ['run', 'phase', 'rewards', 'dialogue', 'summary'],
  );
  const [best, worst] = told.filter(({ event }) => event === 'dialogue');
  assert.ok(best.reward > worst.reward && best.turns.length > 0);
  const one = await optimaHere(['show', run, best.id]);
  assert.match(one.stdout, new RegExp(`reward: ${best.reward.toFixed(4)}`));
  assert.match(one.stdout, 'alice is told:');
  const [dialogue] = objects((await optimaHere(['show', run, best.id, '--json'])).stdout);
  assert.is(dialogue.ranked.reward, best.reward);
  const turn = await optimaHere(['show', run, dialogue.turns[1].id]);
  assert.match(turn.stdout, /bob had read:\n {2}system: You are bob/);
});

test('show finds what was said, in a phase or the whole run', async () => {
  const { stdout } = await optimaHere([
    'show',
    run,
    '--said',
    'KENRON',
    '--phase',
    'idpo-1/search',
    '--json',
  ]);
  const told = objects(stdout);
  const { messages, trees } = told.at(-1);
  assert.ok(messages > trees && trees > 1, stdout);
  assert.is(told.length, messages + 1);
  assert.ok(told.slice(0, -1).every(({ text, phase }) => /kenron/i.test(text) && phase === 'idpo-1/search'));
  const all = await optimaHere(['show', run, '--said', 'kenron']);
  assert.match(all.stdout, /^base\/test-\d+\.\S* (alice|bob): .*Kenron/m);
  assert.match(all.stdout, /\n\d+ messages in \d+ trees\n$/);
  assert.is((await optimaHere(['show', run, '--said', 'nobody says so'])).stdout, 'Nobody said that.\n');
  for (const [args, message] of [
    [['--said', ' '], '--said: what?'],
    [['--said', 'x', '--phase', 'idpo-1/serch'], 'it has no phase idpo-1/serch'],
  ] as const) {
    const { code, stderr } = await optimaHere(['show', run, ...args]);
    assert.is(code, 2);
    assert.match(stderr, message);
  }
});

test('tree tells values, visits, merged turns, pairs and why others are none', async () => {
  const told = objects((await optimaHere(['tree', run, '--task', tree, '--json'])).stdout);
  const summary = told.at(-1);
  assert.is(summary.tree, tree);
  assert.is(summary.worth.visits, 24);
  const pairs = told.filter(({ event }) => event === 'pair');
  const count = (reason: string | null) => pairs.filter((pair) => pair.reason === reason).length;
  assert.is(count(null), summary.pairs);
  for (const [reason, number] of Object.entries(summary.dropped)) assert.is(count(reason), number, reason);
  assert.ok(told.some(({ event, merged }) => event === 'turn' && merged.length > 0));
  const { stdout } = await optimaHere(['tree', run, '--task', path.basename(tree), '--all']);
  assert.match(stdout, `${tree}: 24 dialogues`);
  assert.match(stdout, /└─ \.\d+ alice v -?\d\.\d\d n \d+/);
  assert.match(stdout, new RegExp(`${summary.pairs} pairs? kept of ${pairs.length} compared`));
  assert.match(stdout, 'they are worth too much alike');
  const elsewhere = await optimaHere(['tree', run, '--task', 'train-00001']);
  assert.match(elsewhere.stdout, 'init-0/generate/train-00001: 8 dialogues');
});

test('a fork stands below its tree, is read like a dialogue, and its log is examined', async () => {
  const forked = copyOf('forked');
  const reader = RunReader.open(forked);
  const { turns, id } = reader.dialogue([...reader.dialogues({ tree })][0]!.id)!;
  const [first, second] = turns as [Turn, Turn];
  const dialogueId = childId(first.id, 'f0');
  const { observed: _, ...turn } = {
    ...second,
    id: dialogueId,
    text: 'said by hand',
    provenance: 'human' as const,
  };
  const taskId = path.basename(tree) as TaskId;
  await appendForks(forked, () => [
    {
      ...{ type: 'fork.begun', fork: 0, dialogueId, taskId, phase: 'idpo-1/search', tree: tree as NodeId },
      ...{ at: 'instead-of', node: second.id, sibling: second.id, beside: id, said: 'written', policy: {} },
      ...{ own: true, temperature: 0.7, normaliser: 60 },
    },
    { type: 'dialogue.opened', dialogueId, taskId, tree: tree as NodeId, parent: first.id, format: null },
    { type: 'turn.taken', dialogueId, turn },
    { type: 'dialogue.closed', dialogueId, outcome: 'agreed', failure: null },
    { type: 'verdict.given', dialogueId, taskScore: 1, exactMatch: true, answer: 'x' },
    {
      ...{
        type: 'trajectory.ranked',
        dialogueId,
        taskId,
        tokens: 9,
        terms: { task: 1, tokenShare: 0.1, loss: 1 },
      },
      ...{ reward: 1.5, turnLosses: [1, 1], edgeCases: [], eligible: true, failure: null },
    },
  ]);
  assert.equal(
    reader.forks(tree).map((fork) => fork.turns.map(({ text }) => text)),
    [[first.text, 'said by hand']],
  );
  assert.equal(reader.forks('base/test-00000'), []);
  reader.close();
  assert.match(
    (await optimaHere(['tree', forked, '--task', tree])).stdout,
    `fork 0, ${dialogueId}, instead of ${second.id}, written`,
  );
  const { stdout } = await optimaHere(['show', forked, dialogueId]);
  assert.match(stdout, 'bob: said by hand\n\nanswer: x, score 1.000');
  const file = path.join(forked, 'forks.jsonl');
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('by hand', 'by hamd'));
  assert.match((await optimaHere(['doctor', forked])).stdout, 'forks.jsonl:3: not an event of this log');
  fs.rmSync(forked, { recursive: true });
});

test('what is not there is said in a line, with the nearest that is', async () => {
  const cases: [string[], string, string][] = [
    [['show', path.join(runs, 'made-upp')], 'no such run', 'Did you mean .*made-up\\?'],
    [['show', folder], 'is not a run folder', ''],
    [
      ['show', run, `${tree.replace('search', 'serch')}.0`],
      'it has no dialogue',
      `Did you mean ${tree}\\.0\\?`,
    ],
    [['tree', run, '--task', 'train-0002'], 'it has no task train-0002', 'Did you mean train-000\\d\\d\\?'],
    [['show', run, '../../etc/passwd'], 'it has no dialogue', ''],
    [['runs', path.join(folder, 'nowhere')], 'no such folder', ''],
    [['runs', runs, '--prune', 'made-upp', '--yes'], 'has no run made-upp', 'Did you mean made-up\\?'],
    [['runs', runs, '--prune', '..', '--yes'], 'has no run \\.\\.', ''],
    [['runs', runs, '--prune', 'made-up'], 'nobody to ask', '--yes'],
    [['doctor', folder], 'is not a run folder', ''],
  ];
  for (const [args, message, hint] of cases) {
    const { code, stdout } = await optimaHere([...args, '--json']);
    assert.ok(code !== 0, args.join(' '));
    const error = objects(stdout).at(-1);
    assert.match(error.message, new RegExp(message), args.join(' '));
    assert.not.match(error.message, /\n/);
    if (hint !== '') assert.match(error.hint, new RegExp(hint));
  }
  assert.ok(fs.existsSync(run));
  const without = path.join(folder, 'without');
  writeRun(without, []);
  assert.is((await optimaHere(['pairs', without])).stdout, `${without}: no pairs.\n`);
});

test('runs lists runs, and deletes one only when it may and none has it', async () => {
  const old = copyOf('old');
  const kept = copyOf('kept');
  const listed = objects((await optimaHere(['runs', runs, '--json'])).stdout);
  assert.equal(
    listed.map(({ name, state }) => [name, state]),
    [
      ['kept', 'completed'],
      ['made-up', 'completed'],
      ['old', 'completed'],
      [undefined, undefined],
    ],
  );
  const inUse = RunFolder.open(kept, systemClock);
  const refused = await optimaHere(['runs', runs, '--prune', 'old', '--prune', 'kept', '--yes', '--json']);
  assert.match(objects(refused.stdout)[0].message, /kept is in use by process/);
  inUse.close();
  assert.ok(fs.existsSync(old), 'nothing is deleted where one may not be');
  const checkpoint = path.join(old, 'checkpoints/one');
  fs.mkdirSync(checkpoint, { recursive: true });
  const manifest = readManifest(kept);
  writeManifest(kept, { ...manifest, base: { ...manifest.base, folder: checkpoint } });
  const needed = await optimaHere(['runs', runs, '--prune', 'old', '--yes', '--json']);
  assert.match(objects(needed.stdout).at(-1).message, /^kept needs a checkpoint of old: /);
  assert.ok(fs.existsSync(checkpoint));
  writeManifest(kept, manifest);
  const { code, stdout } = await optimaHere(['runs', runs, '--prune', old, '--yes', '--json']);
  assert.is(code, 0, stdout);
  assert.equal(fs.readdirSync(runs), ['kept', 'made-up']);
  fs.rmSync(kept, { recursive: true });
});

test('where the index of a long log has to be made, it is told how far that is', async () => {
  const long = path.join(runs, 'long');
  writeRun(long, longEvents(30 << 20));
  const stages = async (command: string) =>
    objects((await optimaHere([command, long, '--json'])).stdout)
      .filter(({ event, stage }) => event === 'stage' && stage === `reading ${long}`)
      .map(({ state }) => state);
  for (const command of ['show', 'pairs']) {
    const told = await stages(command);
    assert.is(told[0], 'begun');
    assert.is(told.at(-1), 'done');
    assert.equal(await stages(command), [], 'once is enough');
    fs.rmSync(path.join(long, 'events.index'));
  }
  fs.rmSync(long, { recursive: true });
});

test('a run whose log is compressed looks as it did', async () => {
  const small = copyOf('small');
  const seen = async (of: string) => {
    const texts = [];
    for (const args of [[], [tree]])
      texts.push((await optimaHere(['show', of, ...args, '--json'])).stdout.replaceAll(of, 'run'));
    return texts;
  };
  const told = async (of: string) => {
    const events = [];
    for await (const event of readEvents(of)) events.push(event);
    return events;
  };
  const before = await seen(small);
  for (const again of [false, true]) {
    const { code, stdout, stderr } = await optimaHere(['runs', runs, '--compress', 'small', '--json']);
    assert.is(code, 0, stdout + stderr);
    const [{ run: name, before: had, after: has }] = objects(stdout).filter(
      ({ event }) => event === 'compressed',
    );
    assert.is(name, 'small');
    assert.ok(again ? had === has : had > 5 * has, stdout);
  }
  assert.equal(fs.readdirSync(small).sort(), ['events.index', 'events.jsonl.gz', 'manifest.json']);
  assert.equal(await seen(small), before);
  assert.equal(await told(small), await told(run));
  fs.rmSync(path.join(small, 'events.index'));
  assert.equal(await seen(small), before, 'an index is made of it, too');
  fs.copyFileSync(path.join(run, 'events.jsonl'), path.join(small, 'events.jsonl'));
  const both = await optimaHere(['doctor', small, '--json']);
  assert.match(both.stdout, 'events.jsonl.gz: beside the log itself');
  const refused = await optimaHere(['runs', runs, '--compress', 'smal', '--json']);
  assert.match(objects(refused.stdout).at(-1).hint, 'Did you mean small');
  fs.rmSync(small, { recursive: true });
});

test('doctor says what is wrong, where, and what lies about', async () => {
  const ill = copyOf('ill');
  const at = (name: string) => path.join(ill, name);
  const lines = fs.readFileSync(at('events.jsonl'), 'utf8').split('\n');
  fs.appendFileSync(at('events.jsonl'), '{"seq":');
  fs.writeFileSync(at('manifest.json.partial'), '{');
  fs.writeFileSync(at('notes.txt'), '');
  fs.writeFileSync(at('lock'), '');
  const examine = async () => {
    const { code, stdout } = await optimaHere(['doctor', ill, '--json']);
    const told = objects(stdout);
    const of = (level: string) =>
      told
        .filter((one) => one.level === level)
        .map(({ problem }) => problem)
        .join('\n');
    return { code, wrong: of('wrong'), remarks: of('remark'), last: told.at(-1) };
  };
  const first = await examine();
  assert.is(first.code, 1);
  assert.is(first.last.event, 'error');
  assert.match(first.wrong, /metrics\.jsonl/);
  assert.match(first.wrong, /22eeb2508bf7e90e: no such checkpoint folder/);
  for (const what of [
    'last line has no end',
    'manifest.json.partial',
    'notes.txt',
    'ill/lock',
    'base: the base is no longer',
  ]) {
    assert.match(first.remarks, what);
  }
  lines[3000] = lines[3000]!.replace(/"sum":"(.)/, (_, one) => `"sum":"${one === 'x' ? 'y' : 'x'}`);
  fs.writeFileSync(at('events.jsonl'), lines.join('\n'));
  assert.match((await examine()).wrong, /events\.jsonl:3001: not an event of this log/);
  fs.rmSync(ill, { recursive: true });
});

test('doctor knows a dialogue that goes on from what an earlier cohort said, and leaves the index as it is', async () => {
  const continued = copyOf('continued');
  const events = eventsIn(continued);
  const end = events.findIndex(({ type }) => type === 'cohort.completed');
  const own = events.slice(0, end);
  const find = <Type extends RunEvent['type']>(type: Type) =>
    own.find((event): event is Extract<RunEvent, { type: Type }> => event.type === type)!;
  const { turn } = find('turn.taken');
  const id = `${turn.id}.7` as NodeId;
  const dialogueId = id as string as DialogueId;
  replaceLog(continued, [
    ...events.slice(0, end + 1),
    { ...find('dialogue.opened'), dialogueId, parent: turn.id },
    { ...find('turn.requested'), nodeId: id },
    { type: 'turn.taken', dialogueId, turn: { ...turn, id, parent: turn.id } },
    { type: 'dialogue.closed', dialogueId, outcome: 'turn-cap', failure: null },
    { type: 'verdict.given', dialogueId, taskScore: 0, exactMatch: false, answer: null },
    { ...(events[end] as RunEventOf<'cohort.completed'>), cohort: 99 },
    ...events.slice(end + 1),
  ]);
  fs.rmSync(path.join(continued, 'events.index'), { force: true });
  const checked = async (): Promise<string[]> => {
    const told = objects((await optimaHere(['doctor', continued, '--json'])).stdout);
    return told.find(({ event }) => event === 'summary').checked;
  };
  const said = 'every dialogue of events.jsonl follows from its messages';
  assert.ok((await checked()).includes(said));
  assert.not(fs.existsSync(path.join(continued, 'events.index')), 'it changes nothing');
  RunReader.open(continued).close();
  assert.ok((await checked()).includes('events.index is what the log says'));
  fs.rmSync(continued, { recursive: true });
});

test('doctor remarks on what a kill leaves out, and on a log alone, and calls neither wrong', async () => {
  const killed = copyOf('killed');
  fs.rmSync(path.join(killed, 'metrics.jsonl'), { force: true });
  replaceLog(killed, eventsIn(killed).slice(0, -1));
  const told = objects((await optimaHere(['doctor', killed, '--json'])).stdout);
  const about = told.filter(({ problem = '' }) => problem.includes('metrics.jsonl'));
  assert.equal(
    about.map(({ level }) => level),
    ['remark'],
  );
  const alone = path.join(folder, 'alone');
  await holdDialogue({ scenario: 'two-hop-qa', models: scriptedModel({ reply: () => 'hm' }), folder: alone });
  const { code, stdout } = await optimaHere(['doctor', alone, '--json']);
  assert.is(code, 0, stdout);
  assert.match(stdout, 'it has no manifest.json: a log alone');
  // The log of a run has one.
  fs.rmSync(path.join(killed, 'manifest.json'));
  const lost = await optimaHere(['doctor', killed, '--json']);
  assert.is(lost.code, 1, lost.stdout);
  assert.match(lost.stdout, 'is not a run folder: it has no manifest.json');
  fs.rmSync(killed, { recursive: true });
});

test('whoever only reads runs leaves the processor to whoever trains, and whoever trains does not', async () => {
  for (const [args, priority] of [
    [['view', runs, '--port', '0', '--json'], os.constants.priority.PRIORITY_LOW],
    [['chat', 'two-hop-qa', '--json'], os.getPriority()],
  ] as const) {
    const child = spawn(process.execPath, [launcher, ...args], { stdio: ['pipe', 'pipe', 'ignore'] });
    const [first] = await once(child.stdout!, 'data');
    assert.is(os.getPriority(child.pid!), priority, String(first));
    child.kill('SIGKILL');
    await once(child, 'close');
  }
});

test.run();
