import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash, RunId } from '../../src/domain/ids.ts';
import type { TrainablePolicy } from '../../src/domain/model.ts';
import { RunFolder } from '../../src/run/folder.ts';
import { formatVersion, type Manifest, manifestPath, readManifest } from '../../src/run/manifest.ts';
import { temporaryFolder } from './support.ts';

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
  fs.writeFileSync(lock, String(child.pid));
  const error = await failure(() => RunFolder.open(folder, clock));
  assert.match(error.message, `in use by process ${child.pid}`);
  const ended = new Promise((resolve) => child.on('exit', resolve));
  child.kill('SIGKILL');
  await ended;
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

test.run();
