// Of two processes one has a run, wherever they live; what a dead one left does not stay in the way.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { type Test, test } from 'uvu';
import * as assert from 'uvu/assert';
import type { OptimaError } from '../../src/domain/errors.ts';
import { isLocked, lock } from '../../src/store/lock.ts';
import { temporaryFolder } from '../support/run.ts';

const root = temporaryFolder('lock');
test.after(() => fs.rmSync(root, { recursive: true }));
let count = 0;
function fresh(): string {
  const folder = path.join(root, `${count++}`);
  fs.mkdirSync(folder);
  return folder;
}

function refusal(folder: string): OptimaError {
  try {
    lock(folder)();
  } catch (error) {
    assert.is((error as OptimaError).code, 'run.exists');
    return error as OptimaError;
  }
  throw new Error('The lock was taken.');
}

const module = new URL('../../src/store/lock.ts', import.meta.url).href;
const preload = new URL('../support/types-stripped.mjs', import.meta.url).href;
/** Takes the lock when a line comes, says "has" or the error's message, and holds it until its input ends. */
const holder = `
const { lock } = await import(${JSON.stringify(module)});
process.stdout.write('ready\\n');
process.stdin.once('data', () => {
  try {
    lock(process.argv[1]);
    process.stdout.write('has\\n');
  } catch (error) {
    process.stdout.write(error.message + '\\n');
  }
});
process.stdin.on('end', () => process.exit(0));
`;

function hold(folder: string, before: readonly string[] = []): ChildProcess {
  const [command, ...args] = [
    ...before,
    process.execPath,
    '--import',
    preload,
    '--input-type=module',
    '--eval',
    holder,
    folder,
  ] as const;
  return spawn(command!, args, { stdio: ['pipe', 'pipe', 'inherit'] });
}

async function line(child: ChildProcess): Promise<string> {
  const [text] = await once(child.stdout!, 'data');
  return String(text).trim();
}

async function take(child: ChildProcess): Promise<string> {
  child.stdin!.write('now\n');
  return line(child);
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}

test('a folder is one process\u2019s until it gives it back, and nothing stays behind', () => {
  const folder = fresh();
  for (let turn = 0; turn < 2; turn++) {
    const unlock = lock(folder);
    assert.equal(fs.readdirSync(folder), ['lock']);
    assert.match(refusal(folder).message, `${folder} is in use by process ${process.pid}.`);
    assert.is(/delete/.test(refusal(folder).hint!), process.platform !== 'linux', 'it lives');
    assert.ok(isLocked(folder));
    unlock();
    assert.not(isLocked(folder));
    assert.equal(fs.readdirSync(folder), []);
  }
});

test('of processes that come together one has it, beside a lock that is dead too; the killed one\u2019s is taken over', async () => {
  const folder = fresh();
  for (const dead of [0, 1, 2]) {
    const children = [1, 2, 3].map(() => hold(folder));
    for (const child of children) assert.is(await line(child), 'ready');
    const said = await Promise.all(children.map(take));
    const winner = said.indexOf('has');
    assert.is(said.filter((text) => text === 'has').length, 1, `${dead} dead: ${said}`);
    for (const [index, text] of said.entries()) {
      if (index !== winner) assert.match(text, `is in use by process ${children[winner]!.pid}.`);
    }
    assert.is(fs.readdirSync(folder).length, dead + 1);
    await Promise.all(children.map(kill));
  }
  lock(folder)();
  assert.equal(fs.readdirSync(folder), []);
});

test('a lock of another process with the same number, of an earlier start of the host, or that says nothing is dead', () => {
  const own = fresh();
  const unlock = lock(own);
  const text = fs.readFileSync(path.join(own, 'lock'), 'utf8');
  unlock();
  const changed = (change: object) => JSON.stringify({ ...JSON.parse(text), ...change });
  for (const dead of ['', 'nobody', '4321', changed({ boot: 'earlier' }), changed({ pid: 2 ** 30 })]) {
    const folder = fresh();
    fs.writeFileSync(path.join(folder, 'lock'), dead);
    lock(folder)();
    assert.equal(fs.readdirSync(folder), [], dead);
  }
  if (process.platform === 'linux') {
    const folder = fresh();
    fs.writeFileSync(path.join(folder, 'lock'), changed({ began: '1' }));
    lock(folder)();
  }
  // Nobody here can tell whether these live.
  for (const [change, where] of [
    [{ host: 'elsewhere', pid: 2 ** 30 }, 'on elsewhere'],
    [{ namespace: 'pid:[1]', pid: 2 ** 30 }, 'in another PID namespace'],
  ] as const) {
    const folder = fresh();
    fs.writeFileSync(path.join(folder, 'lock'), changed(change));
    assert.match(refusal(folder).message, `is in use by process ${2 ** 30} ${where}.`);
    assert.equal(fs.readdirSync(folder), ['lock']);
  }
});

test('what a process left that was killed before it had a lock is tidied up, and one that lives writes its own anew', () => {
  const folder = fresh();
  fs.writeFileSync(path.join(folder, 'lock.left.partial'), '{"ho');
  const { linkSync } = fs;
  let tidied = 0;
  fs.linkSync = (draft, file) => {
    if (tidied++ === 0) fs.rmSync(draft);
    linkSync(draft, file);
  };
  try {
    const unlock = lock(folder);
    assert.equal(fs.readdirSync(folder), ['lock']);
    unlock();
  } finally {
    fs.linkSync = linkSync;
  }
  assert.is(tidied, 2);
  assert.equal(fs.readdirSync(folder), []);
});

test('a lock is not given back by one whose lock somebody has deleted', () => {
  const folder = fresh();
  const first = lock(folder);
  fs.rmSync(path.join(folder, 'lock'));
  const second = lock(folder);
  first();
  assert.equal(fs.readdirSync(folder), ['lock']);
  second();
});

const namespace = ['unshare', '-p', '-f', '--mount-proc', '--kill-child'];
const canUnshare =
  process.platform === 'linux' && spawnSync(namespace[0]!, [...namespace.slice(1), 'true']).status === 0;
if (!canUnshare) console.log('skipped: a lock of another PID namespace: unshare is not allowed here');
(canUnshare ? test : (test.skip as Test))('a process in another PID namespace has the run, too', async () => {
  const folder = fresh();
  const inside = hold(folder, namespace);
  assert.is(await line(inside), 'ready');
  assert.is(await take(inside), 'has');
  assert.match(refusal(folder).message, 'in another PID namespace');
  await kill(inside);
});

test.run();
