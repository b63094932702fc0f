import fs from 'node:fs';
import path from 'node:path';
import v8 from 'node:v8';
import vm from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { chunk } from '../../src/domain/chunk.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PhaseKind, RunEvent } from '../../src/domain/events.ts';
import { childId, type PolicyHash, type RunId, rootId, taskId } from '../../src/domain/ids.ts';
import type { DialogueMessage } from '../../src/domain/messages.ts';
import type { TrainablePolicy } from '../../src/domain/model.ts';
import type { Trajectory } from '../../src/domain/transcript.ts';
import { EventLog, emptyLog } from '../../src/store/event-log.ts';
import {
  formatVersion,
  type Manifest,
  manifestPath,
  readManifest,
  writeManifest,
} from '../../src/store/manifest.ts';
import { type PhaseName, RunFolder } from '../../src/store/run-folder.ts';
import { temporaryFolder } from '../support/run.ts';

const root = temporaryFolder('folder');
test.after(() => fs.rmSync(root, { recursive: true }));

const clock = { now: () => 0 };
const manifest: Manifest = {
  format: formatVersion,
  version: '0.1.0',
  node: 'v20.19.0',
  run: 'r' as RunId,
  command: ['train', 'x'],
  scenario: { name: 'x', file: '/x.ts', hash: 'h', tasks: 't' },
  preset: 'quick',
  recipe: {},
  engine: 'cpu',
  base: { folder: '/base', hash: 'b' as PolicyHash },
  seconds: 0,
  log: emptyLog,
};
let count = 0;
const fresh = () => path.join(root, `run-${count++}`);
const start = { type: 'run.started', scenario: 'x', seed: 1, base: 'b' as PolicyHash, recipe: {} } as const;
/** A phase of dialogues, and what it hands on. */
const phase = (name: string): PhaseName<'generate'> => ({ name, kind: 'generate' });
const generated = (dialogues: number) => ({
  kind: 'generate' as const,
  dialogues,
  failed: 0,
  sampledTokens: 0,
});
const mustNotRun = () => Promise.reject(new Error('must not run'));

async function failure(run: () => unknown): Promise<OptimaError> {
  try {
    await run();
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('Nothing was thrown.');
}

/** The k-th phase, from 1, says that it held k dialogues. */
async function runWithPhases(...phases: string[]): Promise<string> {
  const folder = fresh();
  const run = RunFolder.create(folder, manifest, clock);
  run.record(start);
  for (const [index, name] of phases.entries())
    await run.carryOut(phase(name), async () => generated(index + 1));
  run.close();
  return folder;
}

interface Said {
  readonly task?: number;
  readonly sample?: number;
  readonly format?: string | null;
  readonly text?: string;
}

/** A dialogue of one turn below the root of a task's tree, in whatever phase it is held. */
const said =
  ({ task: number = 0, sample = 0, format = null, text = 'hm' }: Said = {}) =>
  (phase: string): { messages: DialogueMessage[]; trajectory: Trajectory } => {
    const task = taskId('train', number);
    const tree = rootId(phase, task);
    const id = childId(tree, sample);
    const views = { alice: `alice sees ${number}`, bob: `bob sees ${number}` };
    const turn = {
      id,
      parent: tree,
      speaker: 'alice',
      text,
      tokenIds: [1, 2],
      logprobs: [-1, -0.5],
      finish: 'stop' as const,
      policyHash: 'p' as PolicyHash,
      seed: 3,
      provenance: 'sampled' as const,
      promptTokens: 4,
    };
    const verdict = { taskScore: 0.5, exactMatch: false, answer: null };
    const messages: DialogueMessage[] = [
      { type: 'task.dealt', taskId: task, views },
      ...(format === null
        ? []
        : [{ type: 'format.dealt' as const, format, prompt: `As ${format}.`, roles: ['alice'] }]),
      { type: 'dialogue.opened', dialogueId: id, taskId: task, tree, parent: null, format },
      { type: 'turn.requested', nodeId: id, speaker: 'alice' },
      { type: 'turn.taken', dialogueId: id, turn },
      { type: 'dialogue.closed', dialogueId: id, outcome: 'turn-cap', failure: null },
      { type: 'verdict.given', dialogueId: id, ...verdict },
    ];
    const common = { id, taskId: task, views, format, turns: [turn] };
    return { messages, trajectory: { ...common, outcome: 'turn-cap', failure: null, verdict } };
  };

/** Holds dialogues in a phase, cohort by cohort, as a resumed run does; resolves with how many cohorts were held anew. */
async function hold(
  run: RunFolder,
  name: string,
  dialogues: readonly ReturnType<typeof said>[],
  cohortSize = 2,
): Promise<number> {
  let held = 0;
  await run.carryOut(phase(name), async () => {
    let cohort = 0;
    for (const episodes of chunk(dialogues, cohortSize)) {
      if (held > 0 || run.replayCohort(name, cohort) === null) {
        held++;
        for (const message of episodes.flatMap((episode) => episode(name).messages)) run.record(message);
        run.record({ type: 'cohort.completed', phase: name, cohort });
      }
      cohort++;
    }
    return generated(dialogues.length);
  });
  return held;
}

test('completed phases and their outputs are there when the run is opened again', async () => {
  const folder = await runWithPhases('one', 'two');
  const run = RunFolder.open(folder, clock);
  assert.equal([...run.phases.keys()], ['one', 'two']);
  assert.equal(run.phases.get('two')!.output, generated(2));
  assert.equal(run.outputOf(phase('two')), generated(2));
  assert.equal(await run.carryOut(phase('two'), mustNotRun), generated(2));
  assert.equal(
    [...run.eventsOf('one')].map(({ type }) => type),
    ['phase.started', 'phase.completed'],
  );
  run.close();
});

test('a manifest that does not know all of the log is brought up to date', async () => {
  const folder = await runWithPhases('one', 'two');
  const { log } = readManifest(folder);
  writeManifest(folder, manifest);
  const run = RunFolder.open(folder, clock);
  assert.equal([...run.phases.keys()], ['one', 'two']);
  run.close();
  assert.equal(readManifest(folder).log, log);
  assert.is(log.events, 5);
});

test('a log that lacks what the manifest knows is corrupt: cut, emptied, deleted, or of another run', async () => {
  const folder = await runWithPhases('one', 'two');
  const begun = await runWithPhases();
  const other = await runWithPhases('uno', 'due');
  const textOf = (run: string) => fs.readFileSync(path.join(run, 'events.jsonl'), 'utf8');
  const lines = textOf(folder).split('\n');
  for (const [run, text] of [
    [folder, `${lines.slice(0, 3).join('\n')}\n`],
    [folder, ''],
    [folder, null],
    [folder, textOf(other)],
    [begun, ''],
  ] as const) {
    const log = path.join(run, 'events.jsonl');
    if (text === null) fs.rmSync(log);
    else fs.writeFileSync(log, text);
    const error = await failure(() => RunFolder.open(run, clock));
    assert.is(error.code, 'run.corrupt');
    assert.match(error.message, /its first \d events are not those that the manifest knows/);
    assert.not.ok(fs.existsSync(path.join(run, 'lock')), 'it is not locked');
  }
});

test('nothing follows the end of a run', async () => {
  const folder = await runWithPhases('one');
  const log = new EventLog(path.join(folder, 'events.jsonl'), clock);
  log.skipTo(3);
  log.append({ type: 'run.completed', policy: { a: 'b' as PolicyHash } });
  log.close();
  const run = RunFolder.open(folder, clock);
  assert.equal(run.policy, { a: 'b' });
  run.close();
  const again = new EventLog(path.join(folder, 'events.jsonl'), clock);
  again.skipTo(4);
  again.append({ type: 'phase.started', phase: 'two' });
  again.close();
  const error = await failure(() => RunFolder.open(folder, clock));
  assert.is(error.code, 'run.corrupt');
  assert.match(error.message, 'events.jsonl:5: events follow the run’s end'.replace('’', "'"));
});

test('a run is read while another process has it, and nothing of it changes', async () => {
  const folder = await runWithPhases('one');
  const holder = RunFolder.open(folder, clock);
  fs.appendFileSync(path.join(folder, 'events.jsonl'), '{"seq":3,"at');
  const before = fs
    .readdirSync(folder)
    .map((name) => [name, fs.readFileSync(path.join(folder, name), 'utf8')]);
  const run = RunFolder.read(folder);
  assert.equal(run.outputOf(phase('one')), generated(1));
  assert.is(run.policy, null);
  run.close();
  assert.equal(
    fs.readdirSync(folder).map((name) => [name, fs.readFileSync(path.join(folder, name), 'utf8')]),
    before,
  );
  holder.close();
});

test('a folder in which a process was killed before it had a manifest takes a run', () => {
  const folder = fresh();
  fs.mkdirSync(folder);
  fs.writeFileSync(`${manifestPath(folder)}.partial`, '{"format":');
  RunFolder.create(folder, manifest, clock).close();
  assert.equal(fs.readdirSync(folder).sort(), ['events.jsonl', 'manifest.json']);
});

test('any line that was changed is found when the run is opened, and is named', async () => {
  const folder = fresh();
  const run = RunFolder.create(folder, manifest, clock);
  run.record(start);
  await hold(run, 'one', [said({ text: 'Yes' })]);
  await hold(run, 'two', [said({ task: 1, text: 'Yes' }), said({ task: 2, text: 'Yes' })]);
  run.close();
  const log = path.join(folder, 'events.jsonl');
  const text = fs.readFileSync(log, 'utf8');
  const change = (number: number, from: string, to: string) => {
    const lines = text.split('\n');
    assert.match(lines[number - 1]!, from);
    lines[number - 1] = lines[number - 1]!.replace(from, to);
    fs.writeFileSync(log, lines.join('\n'));
    return failure(() => RunFolder.open(folder, clock));
  };
  const { from, to } = run.phases.get('two')!;
  for (const [number, before, after] of [
    [3, 'bob sees 0', 'bob sees 1'],
    [from + 1, '"phase":"two"', '"phase":"one"'],
    [from + 2, 'alice sees 1', 'alice sees 7'],
    [from + 5, '"text":"Yes"', '"text":"yes"'],
    [to - 1, '"cohort":0', '"cohort":1'],
    [to, '"dialogues":2', '"dialogues":3'],
  ] as const) {
    const error = await change(number, before, after);
    assert.is(error.code, 'run.corrupt');
    assert.match(
      error.message,
      `events.jsonl:${number}: not an event of this log: it does not have its sum.`,
    );
    assert.match(error.hint!, 'restore it or start a new run');
  }
  fs.writeFileSync(log, text);
  const again = RunFolder.open(folder, clock);
  assert.equal([...again.phases.keys()], ['one', 'two'], 'the log as it was is taken');
  again.close();
});

test('a run of another format, older or newer, is refused in one line that names both formats', async () => {
  assert.is(formatVersion, 6);
  for (const [format, version] of [
    [1, '0.1.0'],
    [99, '9.0.0'],
  ] as const) {
    const folder = await runWithPhases('one');
    fs.writeFileSync(manifestPath(folder), JSON.stringify({ ...manifest, format, version }));
    // What an older program wrote into its log is not looked at.
    fs.writeFileSync(path.join(folder, 'events.jsonl'), '{"seq":0,"at":"x","type":"dialogue.opened"}\n');
    for (const open of [() => RunFolder.open(folder, clock), () => readManifest(folder)]) {
      const error = await failure(open);
      assert.is(error.code, 'run.version');
      assert.is(
        error.message,
        `${manifestPath(folder)}: written by optima-actors ${version} in run format ${format}; this version reads formats 5 to 6.`,
      );
      assert.match(error.hint!, 'version that wrote it');
    }
    assert.equal(fs.readdirSync(folder).sort(), ['events.jsonl', 'manifest.json'], 'it is not locked');
  }
});

test('a manifest that is none is corrupt, and a folder without one is no run', async () => {
  const folder = await runWithPhases();
  fs.writeFileSync(manifestPath(folder), '{"format":3');
  assert.is((await failure(() => readManifest(folder))).code, 'run.corrupt');
  fs.writeFileSync(manifestPath(folder), JSON.stringify({ ...manifest, engine: 7 }));
  assert.match((await failure(() => readManifest(folder))).message, 'field engine');
  assert.is((await failure(() => readManifest(root))).code, 'run.missing');
});

test('a folder with something in it is not overwritten', async () => {
  const folder = await runWithPhases();
  const error = await failure(() => RunFolder.create(folder, manifest, clock));
  assert.is(error.code, 'run.exists');
  assert.match(error.hint!, '--resume');
  const other = fresh();
  fs.mkdirSync(other);
  fs.writeFileSync(path.join(other, 'letter.txt'), '');
  assert.is((await failure(() => RunFolder.create(other, manifest, clock))).code, 'run.exists');
  assert.equal(fs.readdirSync(other), ['letter.txt']);
});

test('a folder that cannot be made is io.write', async () => {
  const file = fresh();
  fs.writeFileSync(file, '');
  const error = await failure(() => RunFolder.create(path.join(file, 'run'), manifest, clock));
  assert.is(error.code, 'io.write');
  assert.match(error.message, /^Cannot write .*: a part of the path is not a folder\.$/);
});

test('a checkpoint that cannot be written leaves nothing under its name', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
  const policy = { save: () => Promise.reject(full) } as unknown as TrainablePolicy;
  const error = await failure(() => run.saveCheckpoint(policy));
  assert.match(error.message, 'no space is left');
  assert.equal(fs.readdirSync(path.join(run.path, 'checkpoints')), []);
  run.close();
});

/** A policy whose weights are a file with this text; it tells what it found where it was to save. */
function policyOf(text: string, found: string[][] = []): TrainablePolicy {
  const save = async (folder: string) => {
    found.push(fs.existsSync(folder) ? fs.readdirSync(folder) : ['nothing']);
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(path.join(folder, 'weights'), text);
    return `hash-of-${text}` as PolicyHash;
  };
  return { save } as unknown as TrainablePolicy;
}

test('a checkpoint stands under its hash, and what a killed process left beside it is swept away', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  const partial = path.join(run.path, 'checkpoints', 'partial');
  fs.mkdirSync(partial, { recursive: true });
  fs.writeFileSync(path.join(partial, 'half'), '');
  const found: string[][] = [];
  assert.is(await run.saveCheckpoint(policyOf('one', found)), 'hash-of-one');
  assert.equal(found, [['nothing']]);
  const folder = run.checkpointFolder('hash-of-one' as PolicyHash);
  assert.is(folder, path.join(run.path, 'checkpoints', 'hash-of-one'));
  assert.equal(fs.readdirSync(folder), ['weights']);
  assert.equal(fs.readdirSync(path.dirname(folder)), ['hash-of-one']);
  run.close();
});

test('a checkpoint that is there already stays, and the new one beside it goes', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  await run.saveCheckpoint(policyOf('one'));
  fs.writeFileSync(path.join(run.checkpointFolder('hash-of-one' as PolicyHash), 'mark'), '');
  assert.is(await run.saveCheckpoint(policyOf('one')), 'hash-of-one');
  assert.equal(fs.readdirSync(path.join(run.path, 'checkpoints', 'hash-of-one')), ['mark', 'weights']);
  assert.equal(fs.readdirSync(path.join(run.path, 'checkpoints')), ['hash-of-one']);
  run.close();
});

/** What `run` flushes and renames, by the names of the files, in order. */
async function flushesOf(run: () => Promise<unknown>): Promise<string[]> {
  const { fsyncSync, renameSync } = fs;
  const calls: string[] = [];
  fs.fsyncSync = (descriptor) => {
    calls.push(`flush ${path.basename(fs.readlinkSync(`/proc/self/fd/${descriptor}`))}`);
    fsyncSync(descriptor);
  };
  fs.renameSync = (from, to) => {
    calls.push(`rename ${path.basename(String(to))}`);
    renameSync(from, to);
  };
  try {
    await run();
  } finally {
    Object.assign(fs, { fsyncSync, renameSync });
  }
  return calls;
}

test('a phase is done when its log and then the manifest are on the disk, a checkpoint when its folder is', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  run.record(start);
  if (process.platform === 'linux') {
    assert.equal(await flushesOf(() => run.saveCheckpoint(policyOf('one'))), [
      'rename hash-of-one',
      'flush checkpoints',
    ]);
    const name = path.basename(run.path);
    assert.equal(await flushesOf(() => run.carryOut(phase('one'), async () => generated(1))), [
      'flush events.jsonl',
      'flush manifest.json.partial',
      'rename manifest.json',
      `flush ${name}`,
    ]);
    assert.equal(await flushesOf(async () => run.writeMetrics([])), [
      'flush metrics.jsonl.partial',
      'rename metrics.jsonl',
      `flush ${name}`,
    ]);
  }
  run.close();
});

test('metrics are replaced as a whole, a row a line', () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  const file = path.join(run.path, 'metrics.jsonl');
  run.writeMetrics([{ a: 1 }, { b: 'x' }, { c: null }]);
  assert.is(fs.readFileSync(file, 'utf8'), '{"a":1}\n{"b":"x"}\n{"c":null}\n');
  run.writeMetrics([{ d: 2 }]);
  assert.is(fs.readFileSync(file, 'utf8'), '{"d":2}\n');
  run.close();
});

test('the seconds of the manifest are those of completed phases, over all processes', async () => {
  let now = 0;
  const ticking = { now: () => now };
  const folder = fresh();
  now = 5_000;
  const first = RunFolder.create(folder, manifest, ticking);
  first.record(start);
  const work = (ms: number) => async () => {
    now += ms;
    return generated(1);
  };
  await first.carryOut(phase('one'), work(3_000));
  assert.is(first.manifest.seconds, 3);
  await first.carryOut(phase('two'), work(500));
  assert.is(readManifest(folder).seconds, 3.5);
  // Work on a phase that is not completed is lost.
  await failure(() =>
    first.carryOut(phase('three'), async () => {
      now += 70_000;
      throw new OptimaError('interrupted', 'Interrupted.');
    }),
  );
  first.close();
  now = 1_000_000;
  const second = RunFolder.open(folder, ticking);
  assert.is(second.manifest.seconds, 3.5);
  await second.carryOut(phase('one'), work(9_000));
  now += 250;
  await second.carryOut(phase('three'), work(2_000));
  second.close();
  assert.is(readManifest(folder).seconds, 5.75);
});

test('a phase lies in the log between its start and its end, which holds its output', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  run.record(start);
  await run.carryOut(phase('one'), async () => generated(1));
  const inside = { type: 'cohort.completed', phase: 'two', cohort: 0 } as const;
  const output = await run.carryOut(phase('two'), async () => {
    assert.equal([...run.log.events(3)], [{ type: 'phase.started', phase: 'two' }]);
    assert.equal([...run.phases.keys()], ['one']);
    assert.is(run.outputOf(phase('two')), null, 'it has no output yet');
    assert.throws(() => run.eventsOf('two'), /two is not completed/);
    run.record(inside);
    return generated(7);
  });
  assert.equal(output, generated(7));
  const record = { from: 3, to: 6, output: generated(7) };
  assert.equal(run.phases.get('two'), record);
  assert.equal(
    [...run.eventsOf('two')],
    [
      { type: 'phase.started', phase: 'two' },
      inside,
      { type: 'phase.completed', phase: 'two', output: generated(7) },
    ],
  );
  assert.throws(() => run.eventsOf('three'), /three is not completed/);
  assert.equal(await run.carryOut(phase('two'), mustNotRun), generated(7));
  assert.is(run.log.position, 6);
  run.close();
  const opened = RunFolder.open(run.path, clock);
  assert.equal(opened.phases.get('two'), record);
  assert.equal(opened.manifest.log, opened.log.end);
  opened.close();
});

test('a phase that failed is not done, and is carried out when the run is opened again', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  run.record(start);
  await failure(() =>
    run.carryOut(phase('one'), () => Promise.reject(new OptimaError('timeout', 'Too long.'))),
  );
  assert.is(run.phases.size, 0);
  run.close();
  assert.is(readManifest(run.path).log.events, 1);
  const opened = RunFolder.open(run.path, clock);
  assert.is(opened.log.position, 1, 'the log stands before the phase');
  assert.equal(await opened.carryOut(phase('one'), async () => generated(3)), generated(3));
  opened.close();
  const types = fs.readFileSync(path.join(run.path, 'events.jsonl'), 'utf8').match(/"type":"[^"]*"/g);
  assert.equal(types, ['"type":"run.started"', '"type":"phase.started"', '"type":"phase.completed"']);
});

test('a log whose last line was cut off belongs to a phase that is carried out again', async () => {
  const folder = await runWithPhases('one', 'two');
  const log = path.join(folder, 'events.jsonl');
  fs.truncateSync(log, fs.statSync(log).size - 1);
  writeManifest(folder, manifest);
  const run = RunFolder.open(folder, clock);
  assert.equal([...run.phases.keys()], ['one']);
  assert.is(run.manifest.log.events, 4, 'the manifest is brought up to date');
  assert.equal(readManifest(folder).log, run.manifest.log);
  await run.carryOut(phase('two'), async () => generated(2));
  run.close();
  assert.is(fs.readFileSync(log, 'utf8').trim().split('\n').length, 5);
});

test('opening a run whose manifest is up to date does not write it', async () => {
  const folder = await runWithPhases('one', 'two');
  const text = `${fs.readFileSync(manifestPath(folder), 'utf8')}  \n`;
  fs.writeFileSync(manifestPath(folder), text);
  RunFolder.open(folder, clock).close();
  assert.is(fs.readFileSync(manifestPath(folder), 'utf8'), text);
});

test('the new run has its manifest, its lock and an empty log', () => {
  const folder = fresh();
  fs.mkdirSync(folder);
  const run = RunFolder.create(folder, manifest, clock);
  assert.equal(fs.readdirSync(folder).sort(), ['events.jsonl', 'lock', 'manifest.json']);
  assert.equal(readManifest(folder), manifest);
  assert.equal(run.manifest, manifest);
  run.close();
  assert.equal(fs.readdirSync(folder).sort(), ['events.jsonl', 'manifest.json']);
});

test('a folder that is taken says by what', async () => {
  const folder = await runWithPhases();
  const run = await failure(() => RunFolder.create(folder, manifest, clock));
  assert.is(run.message, `${folder} already holds a run.`);
  assert.is(run.hint, `Continue it with --resume ${folder}, or name another folder.`);
  fs.rmSync(manifestPath(folder));
  const files = await failure(() => RunFolder.create(folder, manifest, clock));
  assert.is(files.message, `${folder} already has files in it.`);
  assert.is(files.hint, 'Name another folder.');
});

test('a run that cannot be opened is not locked, and its log is closed', async () => {
  const folder = await runWithPhases('one');
  const log = path.join(folder, 'events.jsonl');
  const text = fs.readFileSync(log, 'utf8');
  const { openSync } = fs;
  const opened: number[] = [];
  fs.openSync = (...args: Parameters<typeof openSync>) => {
    const descriptor = openSync(...args);
    if (args[0] === log) opened.push(descriptor);
    return descriptor;
  };
  try {
    for (const broken of [`none\n${text}`, text.replace('"phase":"one"', '"phase":"uno"')]) {
      fs.writeFileSync(log, broken);
      assert.is((await failure(() => RunFolder.open(folder, clock))).code, 'run.corrupt');
      assert.not(fs.existsSync(path.join(folder, 'lock')));
      assert.throws(() => fs.fstatSync(opened.at(-1)!), /EBADF/);
    }
  } finally {
    fs.openSync = openSync;
  }
  assert.is(opened.length, 2);
  const unread = path.join(fresh(), 'deeper');
  fs.mkdirSync(unread, { recursive: true });
  writeManifest(unread, manifest);
  fs.mkdirSync(path.join(unread, 'lock'));
  assert.is((await failure(() => RunFolder.open(unread, clock))).code, 'io.read');
});

const typesIn = (file: string) =>
  fs
    .readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line): RunEvent & { readonly seq: number } => JSON.parse(line));
/** What was dealt, in the order of the log. */
const dealsIn = (file: string) =>
  typesIn(file).flatMap((event) =>
    event.type === 'task.dealt' ? event.taskId : event.type === 'format.dealt' ? event.format : [],
  );

/** Two phases with tasks and formats in common; the second and the third cohort of the first share a task, too. */
const dealing = {
  one: [
    said({ task: 0, sample: 0, format: 'list' }),
    said({ task: 0, sample: 1, format: 'table' }),
    said({ task: 1, sample: 0, format: 'list' }),
    said({ task: 2, sample: 0 }),
    said({ task: 2, sample: 1, format: 'list' }),
  ],
  two: [
    said({ task: 1, sample: 0, format: 'table' }),
    said({ task: 3, sample: 0, format: 'arrows' }),
    said({ task: 0, sample: 0 }),
  ],
};
const holdBoth = async (run: RunFolder) => {
  if (run.log.position === 0) run.record(start);
  return [await hold(run, 'one', dealing.one), await hold(run, 'two', dealing.two)];
};
const expectedOf = (name: 'one' | 'two') => dealing[name].map((dialogue) => dialogue(name).trajectory);

async function dealtRun(): Promise<string> {
  const run = RunFolder.create(fresh(), manifest, clock);
  await holdBoth(run);
  run.close();
  return run.path;
}

test('a task and a format are dealt once in a run, where they first occur, whichever phase they occur in', async () => {
  const folder = await dealtRun();
  const log = path.join(folder, 'events.jsonl');
  assert.equal(dealsIn(log), [
    ...['train-00000', 'list', 'table', 'train-00001', 'train-00002'],
    ...['train-00003', 'arrows'],
  ]);
  // Another process knows what was dealt, whether it says so once or twice.
  const run = RunFolder.open(folder, clock);
  // A format may have the name of a task.
  const named = said({ task: 4, format: 'train-00004' });
  await hold(run, 'three', [said({ task: 3, format: 'arrows' }), said({ task: 4, format: 'list' }), named]);
  run.close();
  assert.equal(dealsIn(log).slice(7), ['train-00004', 'train-00004']);
  const position = typesIn(log).findLastIndex(({ type }) => type === 'task.dealt');
  assert.equal(
    typesIn(log).map(({ seq }) => seq),
    typesIn(log).map((_, index) => index),
  );
  assert.is(typesIn(log)[position + 1]!.type, 'dialogue.opened');
});

test('a task or a format that is dealt otherwise than before stops the run, in a later process too', async () => {
  const folder = fresh();
  const views = { alice: 'sees 0', bob: 'sees 1' };
  const task = { type: 'task.dealt', taskId: taskId('train', 3), views } as const;
  const format = { type: 'format.dealt', format: 'terse', prompt: 'Be terse.', roles: ['bob'] } as const;
  const other = { ...task, views: { ...views, bob: 'sees 2' } };
  const run = RunFolder.create(folder, manifest, clock);
  run.record(start);
  await run.carryOut(phase('a'), async () => {
    for (const deal of [task, format, task, format]) run.record(deal);
    const { code, message, hint } = await failure(() => run.record(other));
    assert.is(code, 'scenario.invalid');
    assert.is(message, 'The task train-00003 was dealt otherwise before in this run.');
    assert.match(hint!, 'must follow from its task alone');
    return generated(0);
  });
  run.close();
  const again = RunFolder.open(folder, clock);
  again.record(task);
  assert.match((await failure(() => again.record(other))).message, 'task train-00003');
  const loud = { ...format, prompt: 'Be loud.' };
  assert.match((await failure(() => again.record(loud))).message, 'format terse');
  assert.equal([...again.eventsOf('a')].slice(1, -1), [task, format]);
  again.close();
});

test('everything that is no deal is recorded as often as it is said', () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  const event = { type: 'cohort.completed', phase: 'x', cohort: 0 } as const;
  for (const one of [event, event, { type: 'phase.started', phase: 'x' } as const]) run.record(one);
  assert.equal([...run.log.events(0)], [event, event, { type: 'phase.started', phase: 'x' }]);
  run.close();
});

test('a run cut off behind any line, or within one, goes on to the same log, byte for byte', async () => {
  const whole = fs.readFileSync(path.join(await dealtRun(), 'events.jsonl'));
  const lines = whole.toString().split('\n');
  const cohortsOf = { one: 3, two: 2 };
  let cut = 0;
  for (const [index, line] of lines.slice(0, -1).entries()) {
    // Behind one line, within the next.
    for (const length of [index % 2 === 0 ? cut : cut + 30]) {
      const folder = fresh();
      RunFolder.create(folder, manifest, clock).close();
      const log = path.join(folder, 'events.jsonl');
      fs.writeFileSync(log, whole.subarray(0, length));
      const run = RunFolder.open(folder, clock);
      const kept = lines.slice(0, index);
      const isDone = (name: string) =>
        kept.some((text) => text.includes(`phase.completed","phase":"${name}"`));
      const replayed = (name: string) =>
        kept.filter((text) => text.includes(`cohort.completed","phase":"${name}"`)).length;
      const [one, two] = await holdBoth(run);
      const where = `cut in line ${index + 1}`;
      assert.is(one, isDone('one') ? 0 : cohortsOf.one - replayed('one'), where);
      assert.is(two, isDone('two') ? 0 : cohortsOf.two - replayed('two'), where);
      assert.ok(fs.readFileSync(log).equals(whole), where);
      for (const name of ['one', 'two'] as const)
        assert.equal([...run.dialoguesOf(name)], expectedOf(name), where);
      run.close();
      assert.equal(readManifest(folder).log, run.log.end);
    }
    cut += Buffer.byteLength(line) + 1;
  }
});

test('what a phase dealt before it was cut off is logged again by the cohort that is held again', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  run.record(start);
  const { messages } = said({ task: 5, format: 'list' })('one');
  await failure(() =>
    run.carryOut(phase('one'), async () => {
      for (const message of messages.slice(0, 4)) run.record(message);
      throw new OptimaError('interrupted', 'Interrupted.');
    }),
  );
  run.close();
  const log = path.join(run.path, 'events.jsonl');
  const before = fs.readFileSync(log, 'utf8');
  assert.equal(dealsIn(log), ['train-00005', 'list']);
  const opened = RunFolder.open(run.path, clock);
  await opened.carryOut(phase('one'), async () => {
    assert.is(opened.replayCohort('one', 0), null);
    // In place: the log's own events are met one by one, the deals among them.
    for (const message of messages.slice(0, 4)) {
      assert.ok(opened.log.replaying);
      opened.record(message);
    }
    assert.not(opened.log.replaying);
    return generated(1);
  });
  opened.close();
  assert.ok(fs.readFileSync(log, 'utf8').startsWith(before));
  assert.equal(dealsIn(log), ['train-00005', 'list']);
});

test('a phase that was cut off and deals something else when it is resumed has diverged', async () => {
  const cutOff = async () => {
    const run = RunFolder.create(fresh(), manifest, clock);
    run.record(start);
    await failure(() =>
      run.carryOut(phase('one'), async () => {
        run.record(said({ task: 5 })('one').messages[0]!);
        throw new OptimaError('interrupted', 'Interrupted.');
      }),
    );
    run.close();
    return RunFolder.open(run.path, clock);
  };
  for (const other of [said({ task: 6 }), said({ task: 5, sample: 1, format: 'list' })]) {
    const run = await cutOff();
    const [first, second] = other('one').messages;
    const error = await failure(() =>
      run.carryOut(phase('one'), async () => {
        run.record(second!.type === 'format.dealt' ? second! : first!);
        return generated(1);
      }),
    );
    assert.is(error.code, 'run.diverged');
    assert.match(error.message, 'events.jsonl:3:');
    run.close();
  }
});

test('the dialogues of a phase have the views of their tasks, dealt in whatever phase and cohort', async () => {
  const folder = await dealtRun();
  const run = RunFolder.open(folder, clock);
  assert.equal([...run.dialoguesOf('one')], expectedOf('one'));
  const second = [...run.dialoguesOf('two')];
  assert.equal(second, expectedOf('two'));
  // Dealt in phase one: no event of phase two says it.
  assert.equal(second[0]!.views, { alice: 'alice sees 1', bob: 'bob sees 1' });
  const dealt = [...run.eventsOf('two')].filter(({ type }) => type === 'task.dealt');
  assert.is(dealt.length, 1);
  assert.throws(() => [...run.dialoguesOf('three')], /three is not completed/);
  run.close();
});

test('a dialogue that goes on from a turn of an earlier cohort is read with all that led to it', async () => {
  const folder = fresh();
  const run = RunFolder.create(folder, manifest, clock);
  run.record(start);
  const { messages, trajectory } = said({ task: 4, text: 'hi' })('tree');
  const [hi] = trajectory.turns;
  const id = childId(hi!.id, 2);
  const tree = rootId('tree', trajectory.taskId);
  const other = said({ task: 4, sample: 9, text: 'elsewhere' })('other');
  const branch: RunEvent[] = [
    {
      type: 'dialogue.opened',
      dialogueId: id,
      taskId: trajectory.taskId,
      tree,
      parent: hi!.id,
      format: null,
    },
    { type: 'turn.taken', dialogueId: id, turn: { ...hi!, id, parent: hi!.id, text: 'ho', speaker: 'bob' } },
    { type: 'dialogue.closed', dialogueId: id, outcome: 'turn-cap', failure: null },
    { type: 'verdict.given', dialogueId: id, taskScore: 0, exactMatch: false, answer: null },
  ];
  const end = (cohort: number, name = 'tree'): RunEvent => ({
    type: 'cohort.completed',
    phase: name,
    cohort,
  });
  await run.carryOut(phase('other'), async () => {
    for (const event of [...other.messages, end(0, 'other')]) run.record(event);
    return generated(1);
  });
  const textsOf = (dialogues: Iterable<Trajectory>) =>
    [...dialogues].map(({ turns }) => turns.map(({ text }) => text));
  await run.carryOut(phase('tree'), async (from) => {
    // Live, too: the second cohort goes on from the first.
    const forest = run.forest(from);
    const heard: Trajectory[] = [];
    const observation: RunEvent = {
      type: 'observation.given',
      dialogueId: trajectory.id,
      nodeId: hi!.id,
      observations: [{ text: 'go on' }],
    };
    const first = [...messages.slice(0, -2), observation, ...messages.slice(-2)];
    for (const event of [...first, end(0), ...branch, end(1)]) {
      run.record(event);
      heard.push(...forest.take(event));
    }
    assert.equal(textsOf(heard), [['hi'], ['hi', 'ho']]);
    for (const { turns } of heard) assert.equal(turns[0]!.observed, [{ text: 'go on' }]);
    return generated(2);
  });
  run.close();
  const again = RunFolder.open(folder, clock);
  assert.equal(textsOf(again.dialoguesOf('tree')), [['hi'], ['hi', 'ho']]);
  for (const { turns } of again.dialoguesOf('tree')) assert.equal(turns[0]!.observed, [{ text: 'go on' }]);
  assert.equal(textsOf(again.dialoguesOf('other')), [['elsewhere']]);
  again.close();
});

test('a forest of the run knows what was dealt in it, and nothing of its dialogues', async () => {
  const run = RunFolder.open(await dealtRun(), clock);
  const forest = run.forest(0);
  assert.equal(forest.trajectories(), []);
  const { messages, trajectory } = said({ task: 2 })('later');
  for (const message of messages.filter(({ type }) => type !== 'task.dealt')) forest.hear(message);
  assert.equal(forest.trajectories(), [trajectory]);
  const unknown = run.forest(0);
  const other = said({ task: 8 })('later').messages.filter(({ type }) => type !== 'task.dealt');
  assert.throws(
    () => {
      for (const message of other) unknown.hear(message);
      unknown.trajectories();
    },
    (error: OptimaError) => error.code === 'run.corrupt' && error.message.includes('train-00008'),
  );
  run.close();
});

test('a cohort is replayed when it is complete in the log, by its phase and number, and its events are given', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  run.record(start);
  const [first, second] = [said({ task: 0 }), said({ task: 1, format: 'list' })];
  await failure(() =>
    run.carryOut(phase('one'), async () => {
      for (const [cohort, episode] of [first, second].entries()) {
        for (const message of episode('one').messages) run.record(message);
        if (cohort === 0) run.record({ type: 'cohort.completed', phase: 'one', cohort });
      }
      assert.is(run.replayCohort('one', 0), null, 'what this process held is not replayed');
      throw new OptimaError('interrupted', 'Interrupted.');
    }),
  );
  run.close();
  const opened = RunFolder.open(run.path, clock);
  const position = opened.log.position;
  assert.is(opened.replayCohort('two', 0), null);
  assert.is(opened.replayCohort('one', 1), null);
  assert.is(opened.log.position, position, 'the log stays where it stands');
  await opened.carryOut(phase('one'), async () => {
    const events = opened.replayCohort('one', 0)!;
    assert.equal(
      [...events],
      [...first('one').messages, { type: 'cohort.completed', phase: 'one', cohort: 0 }],
    );
    assert.is(opened.replayCohort('one', 1), null, 'it is begun but not complete');
    // Dealt in the cohort that was replayed: known, and not logged again.
    const again = said({ task: 0, sample: 1 })('one').messages;
    for (const message of [...second('one').messages, ...again]) opened.record(message);
    return generated(3);
  });
  assert.equal(dealsIn(path.join(run.path, 'events.jsonl')), ['train-00000', 'train-00001', 'list']);
  opened.close();
});

test('a phase whose output is of another kind than is asked for is corrupt, and is not carried out again', async () => {
  const folder = await runWithPhases('one');
  const run = RunFolder.open(folder, clock);
  for (const kind of ['rank', 'select', 'train', 'evaluate'] as const) {
    for (const ask of [
      () => run.outputOf({ name: 'one', kind }),
      () => run.carryOut<PhaseKind>({ name: 'one', kind }, mustNotRun),
    ]) {
      const error = await failure(ask);
      assert.is(error.code, 'run.corrupt');
      assert.is(
        error.message,
        `${path.join(folder, 'events.jsonl')}: phase one is of kind generate, not ${kind}.`,
      );
    }
  }
  assert.is(run.outputOf({ name: 'two', kind: 'rank' }), null, 'a phase that is not done has no kind');
  assert.equal(run.outputOf(phase('one')), generated(1));
  run.close();
});

/** Bytes that `run` reads of files. */
function bytesRead(run: () => void): number {
  const { readSync } = fs;
  let bytes = 0;
  fs.readSync = ((...args: Parameters<typeof readSync>) => {
    const count = readSync(...args);
    bytes += count;
    return count;
  }) as typeof readSync;
  try {
    run();
  } finally {
    fs.readSync = readSync;
  }
  return bytes;
}

test('neither a run under way nor an open one keeps what the dialogues say: they are read when they are asked for', async () => {
  v8.setFlagsFromString('--expose-gc');
  const collect: () => void = vm.runInNewContext('gc');
  const memory = () => {
    for (let round = 0; round < 3; round++) collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const megabyte = 1 << 20;
  const count = 240;
  const long = (index: number) => said({ task: index, text: `${index}${'x'.repeat(100_000)}` });
  const folder = fresh();
  const run = RunFolder.create(folder, manifest, clock);
  run.record(start);
  const atFirst = memory();
  await hold(
    run,
    'one',
    Array.from({ length: count }, (_, index) => long(index)),
  );
  const recorded = memory() - atFirst;
  assert.ok(recorded < megabyte, `recording took ${recorded} bytes`);
  run.close();
  const { size } = fs.statSync(path.join(folder, 'events.jsonl'));
  assert.ok(size > 22 * megabyte);

  const before = memory();
  const opened = RunFolder.open(folder, clock);
  const index = memory() - before;
  assert.ok(index < megabyte, `opening took ${index} bytes`);
  const dialogues = opened.dialoguesOf('one');
  const read = bytesRead(() => {
    assert.equal(dialogues.next().value, long(0)('one').trajectory);
  });
  assert.ok(read <= 2 * megabyte, `for the first dialogue ${read} of ${size} bytes are read`);
  dialogues.return(undefined);
  let seen = 0;
  let most = 0;
  for (const { id } of opened.dialoguesOf('one')) {
    assert.is(id, long(seen)('one').trajectory.id);
    if (seen++ % 60 === 59) most = Math.max(most, memory() - before);
  }
  assert.is(seen, count);
  assert.ok(most < 6 * megabyte, `reading all took ${most} bytes`);
  opened.close();
});

test.run();
