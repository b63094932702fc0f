// Logs that are compressed: read at any place as the plain ones, found damaged wherever they are, and never lost on the way.
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { writeSyntheticRun } from '../../bench/synthetic-run.ts';
import { OptimaError } from '../../src/domain/errors.ts';
import { createRng } from '../../src/domain/rng.ts';
import { compressLog } from '../../src/store/compress.ts';
import { EventLog } from '../../src/store/event-log.ts';
import { linesIn } from '../../src/store/lines.ts';
import { lock } from '../../src/store/lock.ts';
import { logPath, openLogFile } from '../../src/store/log-file.ts';
import { manifestPath } from '../../src/store/manifest.ts';
import { readEvents } from '../../src/store/read-events.ts';
import { RunFolder } from '../../src/store/run-folder.ts';
import { killAnywhere, labelOf, stateOf } from '../support/crash.ts';
import { temporaryFolder } from '../support/run.ts';

const root = temporaryFolder('compress');
test.after(() => fs.rmSync(root, { recursive: true }));
const plain = path.join(root, 'plain');
const packed = path.join(root, 'packed');
let text: Buffer;
let count = 0;
const copyOf = (run: string) => {
  const copy = path.join(root, `copy-${count++}`);
  fs.cpSync(run, copy, { recursive: true });
  return copy;
};
const rewrite = (run: string, change: (bytes: Buffer) => Uint8Array) => {
  const file = logPath(run);
  fs.writeFileSync(file, change(fs.readFileSync(file)));
  return run;
};

async function failure(work: () => unknown): Promise<OptimaError> {
  try {
    await work();
  } catch (error) {
    assert.instance(error, OptimaError);
    assert.not.match((error as OptimaError).message, '\n');
    return error as OptimaError;
  }
  throw new Error('did not fail');
}
/** Reads every line of a run, with its sum and its schema. */
const readWhole = (run: string) => {
  const opened = RunFolder.read(run);
  opened.close();
  return opened.log.end;
};

/** The text of a run's log, whichever lies there. */
const textOf = (run: string): string => {
  const log = openLogFile(logPath(run));
  try {
    return [...linesIn(log, 0, log.size())].map(([line]) => `${line}\n`).join('');
  } finally {
    log.close();
  }
};

test.before(async () => {
  writeSyntheticRun(plain, 4000);
  text = fs.readFileSync(path.join(plain, 'events.jsonl'));
  fs.cpSync(plain, packed, { recursive: true });
  const heard: number[] = [];
  const sizes = await compressLog(packed, { onProgress: (bytes) => heard.push(bytes) });
  assert.is(sizes!.before, text.length);
  assert.is(sizes!.after, fs.statSync(path.join(packed, 'events.jsonl.gz')).size);
  assert.ok(sizes!.after < text.length / 5, `${sizes!.after} of ${text.length}`);
  assert.ok(heard.length > 3 && heard.at(-1) === text.length);
});

test('any program that reads gzip reads the log, and the plain file is gone', async () => {
  assert.equal(fs.readdirSync(packed).sort(), ['events.jsonl.gz', 'manifest.json']);
  assert.ok(zlib.gunzipSync(fs.readFileSync(path.join(packed, 'events.jsonl.gz'))).equals(text));
  assert.is(await compressLog(packed), null, 'once is enough');
});

test('any part is read as from the plain log', () => {
  const log = openLogFile(logPath(packed));
  assert.is(log.size(), text.length);
  const rng = createRng(1);
  for (let round = 0; round < 200; round++) {
    const from = rng.int(text.length + 1);
    const to = Math.min(text.length, from + rng.int(round % 2 === 0 ? 2000 : 600_000));
    const into = Buffer.alloc(to - from);
    let held = 0;
    while (held < into.length) held += log.read(into, held, into.length - held, from + held);
    assert.ok(into.equals(text.subarray(from, to)), `${from} to ${to}`);
  }
  assert.is(log.read(Buffer.alloc(1), 0, 1, text.length), 0);
  log.close();
  assert.is(textOf(packed), text.toString());
});

test('events come from it as from the plain log, and none can be added', async () => {
  assert.equal(readWhole(packed), readWhole(plain));
  const [before, after] = [readEvents(plain), readEvents(packed)];
  let events = 0;
  for await (const event of before) {
    assert.equal((await after.next()).value, event);
    events++;
  }
  assert.ok((await after.next()).done && events > 3000);
  const log = new EventLog(logPath(packed), { now: () => 0 });
  log.skipTo(log.end.events);
  const error = await failure(() => log.append({ type: 'phase.started', phase: 'more' }));
  assert.match(error.message, /^Cannot write .*events\.jsonl\.gz: it is compressed\.$/);
  assert.match(error.hint!, /^Unpack it first: gunzip /);
  log.sync();
  log.close();
});

test('whatever is changed in it is found, with the file and the place', async () => {
  const whole = fs.readFileSync(logPath(packed));
  const rng = createRng(2);
  const offsets = [...Array.from({ length: 30 }, (_, byte) => byte), whole.length - 1, whole.length - 8];
  while (offsets.length < 150) offsets.push(rng.int(whole.length));
  const run = copyOf(packed);
  for (const offset of offsets) {
    const bytes = Buffer.from(whole);
    bytes[offset]! ^= 1 << rng.int(8);
    fs.writeFileSync(logPath(run), bytes);
    // Whoever reads a log reads it so; that a run is read so, too, is seen now and then.
    const error = await failure(() => (offset % 50 === 1 ? readWhole(run) : textOf(run)));
    assert.is(error.code, 'run.corrupt', `${offset}: ${error.message}`);
    assert.match(error.message, /events\.jsonl\.gz: damaged in the part from byte \d+ on: /, `${offset}`);
    const from = Number(/from byte (\d+)/.exec(error.message)![1]);
    assert.ok(from <= offset || offset < 24, `${offset}: ${error.message}`);
  }
  for (const length of [0, 1, 23, 24, 5000, whole.length - 1]) {
    fs.writeFileSync(logPath(run), whole.subarray(0, length));
    const error = await failure(() => readWhole(run));
    assert.is(error.code, 'run.corrupt', `${length}`);
    assert.match(error.message, 'events.jsonl.gz', `${length}`);
  }
});

test('a log that ends between two members is not the one that the manifest knows', async () => {
  const run = rewrite(copyOf(packed), (bytes) => bytes.subarray(0, bytes.readUInt32LE(16)));
  const error = await failure(() => readWhole(run));
  assert.match(
    error.message,
    /events\.jsonl\.gz: its first \d+ events are not those that the manifest knows/,
  );
});

test('what another program compressed is refused with what to do, and a small file that would fill the memory', async () => {
  const other = rewrite(copyOf(packed), () => zlib.gzipSync(text));
  assert.match((await failure(() => readWhole(other))).hint!, `gunzip ${logPath(other)}`);
  const bomb = rewrite(copyOf(packed), (bytes) => {
    const body = zlib.gzipSync(Buffer.alloc(64 << 20)).subarray(10);
    const head = Buffer.from(bytes.subarray(0, 24));
    head.writeUInt32LE(24 + body.length, 16);
    return Buffer.concat([head, body]);
  });
  const before = process.memoryUsage().arrayBuffers;
  assert.match((await failure(() => readWhole(bomb))).message, 'damaged in the part from byte 0 on');
  assert.ok(process.memoryUsage().arrayBuffers - before < 8 << 20);
  const short = rewrite(copyOf(packed), (bytes) => {
    const at = bytes.readUInt32LE(16);
    const body = zlib.gzipSync(text.subarray(0, 1000)).subarray(10);
    const head = Buffer.from(bytes.subarray(0, 24));
    head.writeUInt32LE(24 + body.length, 16);
    return Buffer.concat([head, body, bytes.subarray(at)]);
  });
  assert.match((await failure(() => readWhole(short))).message, 'it holds 1000 bytes, not 262144');
});

test('a run that is not over, or is in use, or whose log is a link, is left as it is', async () => {
  for (const [what, change, code] of [
    [
      'cut',
      (bytes: Buffer) => bytes.subarray(0, bytes.lastIndexOf('\n', bytes.length - 2) + 1),
      'run.missing',
    ],
    ['torn', (bytes: Buffer) => Buffer.concat([bytes, Buffer.from('{"seq":')]), 'run.missing'],
    ['without its end', (bytes: Buffer) => bytes.subarray(0, -1), 'run.missing'],
    ['empty', () => Buffer.alloc(0), 'run.missing'],
  ] as const) {
    const run = rewrite(copyOf(plain), change);
    const before = fs.readFileSync(logPath(run));
    assert.is((await failure(() => compressLog(run))).code, code, what);
    assert.ok(fs.readFileSync(logPath(run)).equals(before), what);
    assert.equal(fs.readdirSync(run).sort(), ['events.jsonl', 'manifest.json'], what);
  }
  const used = copyOf(plain);
  const unlock = lock(used);
  assert.is((await failure(() => compressLog(used))).code, 'run.exists');
  unlock();
  const linked = copyOf(plain);
  fs.renameSync(path.join(linked, 'events.jsonl'), path.join(root, 'elsewhere.jsonl'));
  fs.symlinkSync(path.join(root, 'elsewhere.jsonl'), path.join(linked, 'events.jsonl'));
  assert.is((await failure(() => compressLog(linked))).code, 'run.corrupt');
  assert.is((await failure(() => compressLog(path.join(root, 'nowhere')))).code, 'io.write');
});

test('interrupted, or read back otherwise than it was written, it leaves the log as it was', async () => {
  const run = copyOf(plain);
  const controller = new AbortController();
  controller.abort();
  assert.is((await failure(() => compressLog(run, { signal: controller.signal }))).code, 'interrupted');
  assert.equal(fs.readdirSync(run).sort(), ['events.jsonl', 'manifest.json']);
  // Bytes of another log, well packed: a disk that mixes things up.
  const { renameSync } = fs;
  const other = copyOf(packed);
  rewrite(other, (bytes) => {
    const at = bytes.readUInt32LE(16);
    const first = Buffer.from(text.subarray(0, 1 << 18));
    first[1000]! ^= 1;
    const body = zlib.gzipSync(first).subarray(10);
    const head = Buffer.from(bytes.subarray(0, 24));
    head.writeUInt32LE(24 + body.length, 16);
    return Buffer.concat([head, body, bytes.subarray(at)]);
  });
  fs.renameSync = (from, to) => {
    if (String(to).endsWith('.gz')) fs.copyFileSync(logPath(other), from);
    renameSync(from, to);
  };
  try {
    const error = await failure(() => compressLog(run));
    assert.match(error.message, 'what is read back is not what was written');
  } finally {
    fs.renameSync = renameSync;
  }
  assert.equal(fs.readdirSync(run).sort(), ['events.jsonl', 'manifest.json']);
  assert.ok(fs.readFileSync(logPath(run)).equals(text));
});

test('killed at any moment it leaves a run that can be read, and compressed again', async () => {
  const run = copyOf(plain);
  const states = path.join(root, 'states');
  const moments = await killAnywhere(
    run,
    () => compressLog(run),
    states,
    () => true,
  );
  const labels = moments.map(labelOf).map((label) => label.replace(/\d+\.partial/, 'partial'));
  for (const label of [
    'half a write events.jsonl.gz.partial',
    'before flush events.jsonl.gz.partial',
    'before rename events.jsonl.gz',
    'before unlink events.jsonl',
    'before rename manifest.json',
  ]) {
    assert.ok(labels.includes(label), `${label} of ${labels}`);
  }
  const again = new Set<string>();
  for (const [place, moment] of moments.entries()) {
    const left = stateOf(states, moment);
    assert.ok(textOf(left) === text.toString(), labelOf(moment));
    if (again.has(labels[place]!)) continue;
    again.add(labels[place]!);
    await compressLog(left);
    assert.ok(textOf(left) === text.toString(), labelOf(moment));
    const files = fs.readdirSync(left).filter((name) => !name.endsWith('.partial'));
    assert.equal(files.sort(), ['events.jsonl.gz', 'manifest.json'], labelOf(moment));
    assert.ok(fs.existsSync(manifestPath(left)));
  }
});

test.run();
