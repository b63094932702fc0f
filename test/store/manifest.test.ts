// The manifest: read back as it was written, whole or not at all.
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { hash16 } from '../../src/domain/hash.ts';
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
  format: formatVersion,
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
  log: { events: 3, sum: '0a1b2c3d' },
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
  const text = fs.readFileSync(manifestPath(folder), 'utf8');
  const { sum, ...rest } = JSON.parse(text);
  assert.equal(rest, manifest);
  assert.is(text, `${JSON.stringify({ ...manifest, sum }, null, 2)}\n`);
  assert.equal(readManifest(folder), manifest);
});

test('any byte of a manifest that changes is found, or changes nothing', () => {
  writeManifest(folder, manifest);
  const whole = fs.readFileSync(manifestPath(folder));
  let found = 0;
  for (const at of whole.keys()) {
    for (const bit of [0, 2, 4]) {
      const changed = Buffer.from(whole);
      changed[at]! ^= 1 << bit;
      fs.writeFileSync(manifestPath(folder), changed);
      try {
        assert.equal(readManifest(folder), manifest);
      } catch (error) {
        assert.instance(error, OptimaError, `byte ${at}`);
        found++;
      }
    }
  }
  assert.ok(found > 2 * whole.length);
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
  for (const log of [{ events: 3 }, { sum: 'x' }, { events: -1, sum: 'x' }]) {
    write({ ...manifest, log });
    assert.match(failure().message, 'field log.');
  }
  for (const empty of [{ run: '' }, { base: { folder: '/base', hash: '' } }]) {
    write({ ...manifest, ...empty });
    assert.is(failure().code, 'run.corrupt');
  }
});

test('another format is told from a file that is none', () => {
  assert.is(formatVersion, 6);
  for (const format of [1, 4, 7, 5.5]) {
    write({ ...manifest, format, engine: undefined });
    const error = failure();
    assert.is(error.code, 'run.version');
    assert.is(
      error.message,
      `${manifestPath(folder)}: written by optima-actors 0.1.0 in run format ${format}; this version reads formats 5 to 6.`,
    );
    assert.is(error.hint, 'Continue it with the version that wrote it, or start a new run.');
  }
  for (const none of [null, [], 'x', { ...manifest, format: null }]) {
    write(none);
    assert.is(failure().message, `${manifestPath(folder)}: it has no format, as a manifest has.`);
  }
  fs.writeFileSync(manifestPath(folder), '{"format":6,');
  assert.match(failure().message, /manifest\.json: not JSON: /);
});

test('a manifest of format 5 is read as one of now, by the hash that it has, and written as one', () => {
  // As the version that had it wrote it.
  const { format, ...rest } = manifest;
  const own = { format: 5, ...rest };
  const text = (sum: string) => `${JSON.stringify({ ...own, sum }, null, 2)}\n`;
  fs.writeFileSync(manifestPath(folder), text(hash16(JSON.stringify(own))));
  assert.equal(readManifest(folder), manifest);
  writeManifest(folder, readManifest(folder));
  assert.is(JSON.parse(fs.readFileSync(manifestPath(folder), 'utf8')).format, 6);
  assert.equal(readManifest(folder), manifest);
  fs.writeFileSync(manifestPath(folder), text(hash16(JSON.stringify(manifest))));
  assert.match(failure().message, 'it does not have the hash that it was written with');
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
