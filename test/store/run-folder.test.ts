import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash, RunId } from '../../src/domain/ids.ts';
import type { TrainablePolicy } from '../../src/domain/model.ts';
import { formatVersion, type Manifest, manifestPath, readManifest } from '../../src/store/manifest.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
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
  phases: [],
};
let count = 0;
const fresh = () => path.join(root, `run-${count++}`);
const start = { type: 'run.started', scenario: 'x', seed: 1, base: 'b' as PolicyHash, recipe: {} } as const;

async function failure(run: () => unknown): Promise<OptimaError> {
  try {
    await run();
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('Nothing was thrown.');
}

async function runWithPhases(...phases: string[]): Promise<string> {
  const folder = fresh();
  const run = RunFolder.create(folder, manifest, clock);
  run.log.append(start);
  for (const phase of phases) await run.carryOut(phase, async () => ({ of: phase }));
  run.close();
  return folder;
}

test('completed phases and their outputs are there when the run is opened again', async () => {
  const folder = await runWithPhases('one', 'two');
  const run = RunFolder.open(folder, clock);
  assert.equal([...run.phases.keys()], ['one', 'two']);
  assert.equal(run.phases.get('two')!.output, { of: 'two' });
  const again = await run.carryOut('two', () => Promise.reject(new Error('must not run')));
  assert.equal(again, { of: 'two' });
  assert.equal(
    run.eventsOf('one').map(({ type }) => type),
    ['phase.started', 'phase.completed'],
  );
  run.close();
});

test('a phase that the log holds as completed and the manifest does not is completed', async () => {
  const folder = await runWithPhases('one', 'two');
  const { phases } = readManifest(folder);
  fs.writeFileSync(manifestPath(folder), JSON.stringify({ ...manifest, phases: phases.slice(0, 1) }));
  const run = RunFolder.open(folder, clock);
  run.close();
  assert.equal(readManifest(folder).phases, phases);
});

test('a log that lacks a phase of the manifest is corrupt', async () => {
  const folder = await runWithPhases('one', 'two');
  const log = path.join(folder, 'events.jsonl');
  const lines = fs.readFileSync(log, 'utf8').split('\n');
  fs.writeFileSync(log, `${lines.slice(0, 3).join('\n')}\n`);
  const error = await failure(() => RunFolder.open(folder, clock));
  assert.is(error.code, 'run.corrupt');
  assert.match(error.message, 'phase two');
});

test('a log whose completed phase was changed is corrupt', async () => {
  const folder = await runWithPhases('one');
  const log = path.join(folder, 'events.jsonl');
  fs.writeFileSync(log, fs.readFileSync(log, 'utf8').replace('"phase":"one"', '"phase":"uno"'));
  const error = await failure(() => RunFolder.open(folder, clock));
  assert.is(error.code, 'run.corrupt');
  assert.match(error.message, 'phase one (lines 2 to 3)');
});

test('a run of another format version is refused with what to do', async () => {
  const folder = await runWithPhases();
  fs.writeFileSync(manifestPath(folder), JSON.stringify({ ...manifest, format: 99, version: '9.0.0' }));
  const error = await failure(() => readManifest(folder));
  assert.is(error.code, 'run.version');
  assert.match(error.message, 'optima-actors 9.0.0 in run format 99');
  assert.match(error.hint!, 'version that wrote it');
});

test('a manifest that is none is corrupt, and a folder without one is no run', async () => {
  const folder = await runWithPhases();
  fs.writeFileSync(manifestPath(folder), '{"format":1');
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

test('a run in use by a living process is refused, one of a dead process is taken over', async () => {
  const folder = await runWithPhases();
  const lock = path.join(folder, 'lock');
  const child = spawn('sleep', ['30']);
  const ended = new Promise((resolve) => child.on('exit', resolve));
  try {
    fs.writeFileSync(lock, String(child.pid));
    const error = await failure(() => RunFolder.open(folder, clock));
    assert.match(error.message, `in use by process ${child.pid}`);
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
  RunFolder.open(folder, clock).close();
  assert.not(fs.existsSync(lock));
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
  run.log.append(start);
  if (process.platform === 'linux') {
    assert.equal(await flushesOf(() => run.saveCheckpoint(policyOf('one'))), [
      'rename hash-of-one',
      'flush checkpoints',
    ]);
    const name = path.basename(run.path);
    assert.equal(await flushesOf(() => run.carryOut('one', async () => ({}))), [
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
  first.log.append(start);
  const work = (ms: number) => async () => {
    now += ms;
    return {};
  };
  await first.carryOut('one', work(3_000));
  assert.is(first.manifest.seconds, 3);
  await first.carryOut('two', work(500));
  assert.is(readManifest(folder).seconds, 3.5);
  // Work on a phase that is not completed is lost.
  await failure(() =>
    first.carryOut('three', async () => {
      now += 70_000;
      throw new OptimaError('interrupted', 'Interrupted.');
    }),
  );
  first.close();
  now = 1_000_000;
  const second = RunFolder.open(folder, ticking);
  assert.is(second.manifest.seconds, 3.5);
  await second.carryOut('one', work(9_000));
  now += 250;
  await second.carryOut('three', work(2_000));
  second.close();
  assert.is(readManifest(folder).seconds, 5.75);
});

test('a phase lies in the log between its start and its end, which holds its hash and output', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  run.log.append(start);
  await run.carryOut('one', async () => ({}));
  const inside = { type: 'cohort.completed', phase: 'two', cohort: 0 } as const;
  const output = await run.carryOut('two', async () => {
    assert.equal(run.log.read(3), [{ type: 'phase.started', phase: 'two' }]);
    assert.equal([...run.phases.keys()], ['one']);
    run.log.append(inside);
    return { figure: 7 };
  });
  assert.equal(output, { figure: 7 });
  const hash = run.log.hash(3, 5);
  const record = { from: 3, to: 6, hash, output: { figure: 7 } };
  assert.equal(run.phases.get('two'), record);
  assert.equal(run.eventsOf('two'), [
    { type: 'phase.started', phase: 'two' },
    inside,
    { type: 'phase.completed', phase: 'two', hash, output: { figure: 7 } },
  ]);
  assert.throws(() => run.eventsOf('three'), /three is not completed/);
  assert.equal(await run.carryOut('two', () => Promise.reject(new Error('must not run'))), { figure: 7 });
  assert.is(run.log.position, 6);
  run.close();
  const opened = RunFolder.open(run.path, clock);
  assert.equal(opened.phases.get('two'), record);
  assert.equal(opened.manifest.phases, [
    { phase: 'one', hash: opened.phases.get('one')!.hash },
    { phase: 'two', hash },
  ]);
  opened.close();
});

test('a phase that failed is not done, and is carried out when the run is opened again', async () => {
  const run = RunFolder.create(fresh(), manifest, clock);
  run.log.append(start);
  await failure(() => run.carryOut('one', () => Promise.reject(new OptimaError('timeout', 'Too long.'))));
  assert.is(run.phases.size, 0);
  run.close();
  assert.equal(readManifest(run.path).phases, []);
  const opened = RunFolder.open(run.path, clock);
  assert.is(opened.log.position, 1, 'the log stands before the phase');
  assert.equal(await opened.carryOut('one', async () => ({ of: 'one' })), { of: 'one' });
  opened.close();
  const types = fs.readFileSync(path.join(run.path, 'events.jsonl'), 'utf8').match(/"type":"[^"]*"/g);
  assert.equal(types, ['"type":"run.started"', '"type":"phase.started"', '"type":"phase.completed"']);
});

test('a log whose last line was cut off belongs to a phase that is carried out again', async () => {
  const folder = await runWithPhases('one', 'two');
  const log = path.join(folder, 'events.jsonl');
  fs.truncateSync(log, fs.statSync(log).size - 1);
  fs.writeFileSync(manifestPath(folder), JSON.stringify({ ...manifest, phases: [] }));
  const run = RunFolder.open(folder, clock);
  assert.equal([...run.phases.keys()], ['one']);
  assert.equal(
    run.manifest.phases.map(({ phase }) => phase),
    ['one'],
    'the manifest is brought up to date',
  );
  assert.equal(readManifest(folder).phases, run.manifest.phases);
  await run.carryOut('two', async () => ({ of: 'two' }));
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

test('a log that is gone while the manifest holds phases is corrupt', async () => {
  const folder = await runWithPhases('one');
  fs.rmSync(path.join(folder, 'events.jsonl'));
  const error = await failure(() => RunFolder.open(folder, clock));
  assert.is(error.code, 'run.corrupt');
  assert.match(error.message, 'phase one');
});

test('the new run has its manifest, its lock and an empty log', () => {
  const folder = fresh();
  fs.mkdirSync(folder);
  const run = RunFolder.create(folder, manifest, clock);
  assert.equal(fs.readdirSync(folder).sort(), ['events.jsonl', 'lock', 'manifest.json']);
  assert.is(fs.readFileSync(path.join(folder, 'lock'), 'utf8'), String(process.pid));
  assert.equal(readManifest(folder), manifest);
  assert.equal(run.manifest, manifest);
  assert.is(fs.readFileSync(manifestPath(folder), 'utf8'), `${JSON.stringify(manifest, null, 2)}\n`);
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

test('a lock counts while its process lives: not one that is empty, broken or our own', async () => {
  const folder = await runWithPhases();
  const lock = path.join(folder, 'lock');
  const { kill } = process;
  const asked: unknown[] = [];
  const answers = (code: string | null) => {
    process.kill = (pid, signal) => {
      asked.push(pid, signal);
      if (code !== null) throw Object.assign(new Error(code), { code });
      return true;
    };
  };
  try {
    for (const text of ['', '  ', '0', '-4321', 'nobody', '43.21', String(process.pid)]) {
      fs.writeFileSync(lock, text);
      answers(null);
      const run = RunFolder.open(folder, clock);
      assert.is(fs.readFileSync(lock, 'utf8'), String(process.pid), `"${text}" is taken over`);
      run.close();
    }
    assert.equal(asked, [], 'there is nobody to ask');
    fs.writeFileSync(lock, '4321');
    // A process of another user may not be asked, and lives.
    for (const living of [null, 'EPERM']) {
      answers(living);
      const error = await failure(() => RunFolder.open(folder, clock));
      assert.is(error.code, 'run.exists');
      assert.match(error.message, 'in use by process 4321');
      assert.is(fs.readFileSync(lock, 'utf8'), '4321', 'the lock of another stays');
    }
    answers('ESRCH');
    RunFolder.open(folder, clock).close();
    assert.not(fs.existsSync(lock));
    assert.equal(asked, [4321, 0, 4321, 0, 4321, 0]);
  } finally {
    process.kill = kill;
  }
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
  fs.writeFileSync(manifestPath(unread), JSON.stringify(manifest));
  fs.mkdirSync(path.join(unread, 'lock'));
  assert.is((await failure(() => RunFolder.open(unread, clock))).code, 'io.write');
});

test.run();
