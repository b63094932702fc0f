// What reaches the disk, in which order, and what an error of the file system says.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { ioError, makeFolder, syncFolder, writeFileAtomic, writeFileWhole } from '../../src/store/files.ts';
import { temporaryFolder } from '../support/run.ts';

const root = temporaryFolder('files');
test.after(() => fs.rmSync(root, { recursive: true }));

const failed = (code: string) => Object.assign(new Error(`${code}: some call`), { code });

/** The calls of `fs` that `run` makes to bring something onto the disk, descriptors as the paths they stand for. */
function callsOf(run: () => void, failing?: string): string[] {
  const calls: string[] = [];
  const names = new Map<unknown, string>();
  const nameOf = (file: unknown) => names.get(file) ?? path.basename(String(file));
  const watched = ['openSync', 'writeFileSync', 'fsyncSync', 'closeSync', 'renameSync'] as const;
  const real = Object.fromEntries(watched.map((name) => [name, fs[name] as (...args: unknown[]) => unknown]));
  for (const name of watched) {
    (fs as unknown as Record<string, unknown>)[name] = (...args: unknown[]) => {
      const call = `${name} ${nameOf(args[0])}${name === 'renameSync' ? ` ${nameOf(args[1])}` : ''}`;
      calls.push(call);
      if (call === failing) throw failed('ENOSPC');
      const result = real[name]!(...args);
      if (name === 'openSync') names.set(result, nameOf(args[0]));
      return result;
    };
  }
  try {
    run();
  } finally {
    Object.assign(fs, real);
  }
  return calls;
}

test('a file is replaced by a flushed one in one step, and the folder is flushed then', () => {
  const file = path.join(root, 'm.json');
  fs.writeFileSync(file, 'old');
  fs.writeFileSync(`${file}.partial`, 'left over by a process that was killed');
  const calls = callsOf(() => writeFileAtomic(file, 'new ö'));
  const folder = path.basename(root);
  assert.equal(calls, [
    'openSync m.json.partial',
    'writeFileSync m.json.partial',
    'fsyncSync m.json.partial',
    'closeSync m.json.partial',
    'renameSync m.json.partial m.json',
    `openSync ${folder}`,
    `fsyncSync ${folder}`,
    `closeSync ${folder}`,
  ]);
  assert.is(fs.readFileSync(file, 'utf8'), 'new ö');
  assert.equal(fs.readdirSync(root), ['m.json']);
});

test('a file that cannot be written stays as it was, and nothing stays open', () => {
  const file = path.join(root, 'kept.json');
  fs.writeFileSync(file, 'old');
  for (const failing of ['writeFileSync', 'fsyncSync']) {
    let error: unknown;
    const calls = callsOf(() => {
      try {
        writeFileAtomic(file, 'new');
      } catch (thrown) {
        error = thrown;
      }
    }, `${failing} kept.json.partial`);
    assert.is((error as OptimaError).message, `Cannot write ${file}: no space is left on the device.`);
    assert.is(calls.at(-1), 'closeSync kept.json.partial');
    assert.is(fs.readFileSync(file, 'utf8'), 'old');
  }
});

test('a folder that cannot be flushed is closed all the same', () => {
  const name = path.basename(root);
  let thrown = false;
  const calls = callsOf(() => {
    try {
      syncFolder(root);
    } catch {
      thrown = true;
    }
  }, `fsyncSync ${name}`);
  assert.equal(calls, [`openSync ${name}`, `fsyncSync ${name}`, `closeSync ${name}`]);
  assert.ok(thrown);
});

test('an error names the path, the cause in words, and what helps', () => {
  const causes = {
    ENOSPC: 'no space is left on the device',
    EDQUOT: 'the disk quota is used up',
    EACCES: 'permission denied',
    EPERM: 'permission denied',
    EROFS: 'the file system is read-only',
    EEXIST: 'a file of that name is there already',
    EFBIG: 'it would grow beyond the limit on file sizes',
    ENOTDIR: 'a part of the path is not a folder',
    EISDIR: 'it is a folder',
    ENOENT: 'no such file or folder',
    EIO: 'EIO: some call',
  };
  for (const [code, cause] of Object.entries(causes)) {
    const original = failed(code);
    const error = ioError('read', '/a/b', original);
    assert.is(error.code, 'io.read');
    assert.is(error.message, `Cannot read /a/b: ${cause}.`);
    assert.is(error.cause, original);
    const full = code === 'ENOSPC' || code === 'EDQUOT';
    assert.is(error.hint, full ? 'Free some space, then resume the run.' : undefined);
  }
  assert.is(ioError('write', '/a', 'no reason').message, 'Cannot write /a: no reason.');
  assert.is(ioError('write', '/a', null).code, 'io.write');
  const own = new OptimaError('run.exists', 'There already.');
  assert.is(ioError('write', '/a', own), own);
});

test('a folder is made with those above it, and one that is there stays', () => {
  const folder = path.join(root, 'a', 'b', 'c');
  makeFolder(folder);
  fs.writeFileSync(path.join(folder, 'file'), '');
  makeFolder(folder);
  assert.equal(fs.readdirSync(folder), ['file']);
  for (const file of [path.join(folder, 'file'), path.join(folder, 'file', 'd')]) {
    assert.throws(
      () => makeFolder(file),
      (error: OptimaError) => error.code === 'io.write' && error.message.startsWith(`Cannot write ${file}: `),
    );
  }
});

test('a file of pieces is there whole or not at all, and what was there stays unless it is to be replaced', async () => {
  const folder = path.join(root, 'pieces');
  fs.mkdirSync(folder);
  const file = path.join(folder, 'rows');
  const failing = async (work: Promise<unknown>) =>
    work.then(
      () => null,
      (error: OptimaError) => error,
    );
  function* broken() {
    yield 'x'.repeat(3 << 20);
    assert.is(fs.existsSync(file), false);
    throw new RangeError('no more');
  }
  assert.is((await failing(writeFileWhole(file, broken())))!.message, 'no more');
  assert.equal(fs.readdirSync(folder), []);
  assert.is(await writeFileWhole(file, ['ö', Uint8Array.of(10)]), 3);
  assert.is(fs.readFileSync(file, 'utf8'), 'ö\n');
  const refused = await failing(writeFileWhole(file, ['other']));
  assert.equal([refused!.code, refused!.message], ['io.write', `${file} exists already.`]);
  assert.is(fs.readFileSync(file, 'utf8'), 'ö\n');
  await writeFileWhole(file, ['other'], { force: true });
  assert.is(fs.readFileSync(file, 'utf8'), 'other');
  const signal = AbortSignal.abort();
  const stopped = await failing(writeFileWhole(file, ['x'.repeat(2 << 20)], { force: true, signal }));
  assert.is(stopped!.code, 'interrupted');
  assert.match((await failing(writeFileWhole(path.join(file, 'x'), ['a'])))!.message, 'not a folder');
  assert.equal(fs.readdirSync(folder), ['rows']);
  assert.is(fs.readFileSync(file, 'utf8'), 'other');
});

test.run();
