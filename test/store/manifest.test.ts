// The manifest: read back as it was written, whole or not at all.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { PolicyHash, RunId } from '../../src/domain/ids.ts';
import {
  formatVersion,
  type Manifest,
  manifestPath,
  readManifest,
  writeManifest,
} from '../../src/store/manifest.ts';
import { temporaryFolder } from '../support/run.ts';

const folder = temporaryFolder('manifest');
test.after(() => fs.rmSync(folder, { recursive: true }));

const manifest: Manifest = {
  format: 4,
  version: '0.1.0',
  node: 'v20.19.0',
  run: 'r' as RunId,
  command: ['train', 'x', '--seed', '1'],
  scenario: { name: 'x', file: '/x.ts', hash: 'h', tasks: 't' },
  preset: 'quick',
  recipe: { seed: 1, isft: { tasks: 2 } },
  engine: 'cpu',
  base: { folder: '/base', hash: 'b' as PolicyHash },
  seconds: 1.5,
  phases: [{ phase: 'base', hash: 'p' }],
};

function failure(): OptimaError {
  try {
    readManifest(folder);
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('Nothing was thrown.');
}
const write = (json: unknown) => fs.writeFileSync(manifestPath(folder), JSON.stringify(json));

test('a manifest is read as it was written', () => {
  assert.is(manifestPath(folder), path.join(folder, 'manifest.json'));
  writeManifest(folder, manifest);
  assert.is(fs.readFileSync(manifestPath(folder), 'utf8'), `${JSON.stringify(manifest, null, 2)}\n`);
  assert.equal(readManifest(folder), manifest);
});

test('no part of a manifest may be missing, and the part is named', () => {
  for (const field of Object.keys(manifest).filter((name) => name !== 'format')) {
    write({ ...manifest, [field]: undefined });
    const error = failure();
    assert.is(error.code, 'run.corrupt');
    assert.match(error.message, `field ${field}`);
  }
  const inner = [
    ...['name', 'file', 'hash', 'tasks'].map((part) => ['scenario', part] as const),
    ...['folder', 'hash'].map((part) => ['base', part] as const),
  ];
  for (const [field, part] of inner) {
    write({ ...manifest, [field]: { ...manifest[field], [part]: undefined } });
    assert.match(failure().message, `manifest.json: field ${field}.${part}: `);
  }
  for (const phase of [{ phase: 'x' }, { hash: 'x' }]) {
    write({ ...manifest, phases: [manifest.phases[0], phase] });
    assert.match(failure().message, 'field phases.1.');
  }
  for (const empty of [{ run: '' }, { base: { folder: '/base', hash: '' } }]) {
    write({ ...manifest, ...empty });
    assert.is(failure().code, 'run.corrupt');
  }
});

test('another format is told from a file that is none', () => {
  assert.is(formatVersion, 4);
  for (const format of [1, 3, 5]) {
    write({ ...manifest, format, engine: undefined });
    const error = failure();
    assert.is(error.code, 'run.version');
    assert.is(
      error.message,
      `${folder}: written by optima-actors 0.1.0 in run format ${format}; this version reads format 4.`,
    );
    assert.is(error.hint, 'Continue it with the version that wrote it, or start a new run.');
  }
  write(null);
  assert.is(failure().code, 'run.version');
  fs.writeFileSync(manifestPath(folder), '{"format":4,');
  assert.match(failure().message, /manifest\.json: not JSON: /);
});

test('a folder without a manifest is no run, one that cannot be read is an error of reading', () => {
  fs.rmSync(manifestPath(folder));
  assert.is(failure().code, 'run.missing');
  const file = path.join(folder, 'file');
  fs.writeFileSync(file, '');
  assert.throws(
    () => readManifest(file),
    (error: OptimaError) => error.code === 'run.missing',
  );
  fs.mkdirSync(manifestPath(folder));
  assert.is(failure().message, `Cannot read ${manifestPath(folder)}: it is a folder.`);
});

test.run();
