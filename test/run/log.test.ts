import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { RunEvent } from '../../src/domain/events.ts';
import { EventLog, type WriteBytes } from '../../src/run/log.ts';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-log-'));
test.after(() => fs.rmSync(folder, { recursive: true }));

let time = 0;
const clock = { now: () => time++ * 1000 };
const started = (phase: string): RunEvent => ({ type: 'phase.started', phase });
const withoutTimes = (file: string) => fs.readFileSync(file, 'utf8').replaceAll(/"at":"[^"]*"/g, '');

function writeLog(name: string, events: readonly RunEvent[]): string {
  const file = path.join(folder, name);
  const log = new EventLog(file, clock);
  for (const event of events) log.append(event);
  log.close();
  return file;
}

function failure(run: () => unknown): OptimaError {
  try {
    run();
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  throw new Error('Nothing was thrown.');
}

test('what was appended is read back, numbered and stamped', () => {
  const file = writeLog('plain.jsonl', [started('a'), started('b')]);
  const lines = fs.readFileSync(file, 'utf8').trim().split('\n');
  assert.is(JSON.parse(lines[1]!).seq, 1);
  assert.match(JSON.parse(lines[1]!).at, /^\d{4}-\d\d-\d\dT/);
  const log = new EventLog(file, clock);
  assert.equal(log.read(0, 2), [started('a'), started('b')]);
  log.close();
});

test('a torn last line is cut off and the rest is kept', () => {
  const whole = writeLog('whole.jsonl', [started('a'), started('b'), started('c')]);
  const text = fs.readFileSync(whole, 'utf8');
  const lastLine = text.lastIndexOf('\n', text.length - 2) + 1;
  for (const length of [lastLine + 1, lastLine + 20, text.length - 1]) {
    const file = path.join(folder, `torn-${length}.jsonl`);
    fs.writeFileSync(file, text.slice(0, length));
    const log = new EventLog(file, clock);
    for (const phase of ['a', 'b', 'c']) log.append(started(phase));
    log.close();
    assert.is(withoutTimes(file), withoutTimes(whole));
  }
});

test('a corrupt line in the middle is named and nothing is cut', () => {
  const file = writeLog('corrupt.jsonl', [started('a'), started('b'), started('c')]);
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  for (const damaged of ['not json', lines[1]!.slice(0, -2), lines[2]!]) {
    fs.writeFileSync(file, [lines[0], damaged, lines[2], ''].join('\n'));
    const before = fs.readFileSync(file, 'utf8');
    const error = failure(() => new EventLog(file, clock));
    assert.is(error.code, 'run.corrupt');
    assert.match(error.message, 'corrupt.jsonl:2:');
    assert.is(fs.readFileSync(file, 'utf8'), before);
  }
});

test('an event of an unknown shape is corrupt when it is read', () => {
  const file = writeLog('shape.jsonl', [started('a')]);
  fs.appendFileSync(file, '{"seq":1,"at":"1970-01-01T00:00:00.000Z","type":"phase.started","phase":7}\n');
  const log = new EventLog(file, clock);
  const error = failure(() => log.read(0, 2));
  assert.is(error.code, 'run.corrupt');
  assert.match(error.message, 'shape.jsonl:2:');
  log.close();
});

test('a reopened log compares what it holds and appends what it does not', () => {
  const file = writeLog('replay.jsonl', [started('a'), started('b')]);
  const before = fs.readFileSync(file, 'utf8');
  const log = new EventLog(file, clock);
  log.append(started('a'));
  assert.ok(log.replaying);
  log.append(started('b'));
  assert.not(log.replaying);
  log.append(started('c'));
  log.close();
  assert.ok(fs.readFileSync(file, 'utf8').startsWith(before));
  assert.is(withoutTimes(file), withoutTimes(writeLog('undisturbed.jsonl', ['a', 'b', 'c'].map(started))));
});

test('an event that differs from the one in the log is a divergence', () => {
  const log = new EventLog(writeLog('diverged.jsonl', [started('a'), started('b')]), clock);
  log.append(started('a'));
  const error = failure(() => log.append(started('x')));
  assert.is(error.code, 'run.diverged');
  assert.match(error.message, 'diverged.jsonl:2:');
  log.close();
});

test('replayThrough passes whole stretches only', () => {
  const log = new EventLog(writeLog('through.jsonl', ['a', 'b', 'c'].map(started)), clock);
  const isPhase = (name: string) => (event: RunEvent) =>
    event.type === 'phase.started' && event.phase === name;
  assert.is(log.replayThrough(isPhase('z')), null);
  assert.is(log.position, 0);
  assert.equal(log.replayThrough(isPhase('b')), [started('a'), started('b')]);
  assert.is(log.position, 2);
  log.close();
});

test('the hash covers the events and not their times', () => {
  const one = new EventLog(writeLog('hash-1.jsonl', [started('a'), started('b')]), clock);
  const two = new EventLog(writeLog('hash-2.jsonl', [started('a'), started('b')]), clock);
  assert.is(one.hash(0, 2), two.hash(0, 2));
  assert.is.not(one.hash(0, 2), two.hash(0, 1));
  one.close();
  two.close();
});

test('a full disk is one clear line, and the log is whole again when it is reopened', () => {
  const file = path.join(folder, 'full.jsonl');
  let left = 120;
  const fillUp: WriteBytes = (descriptor, bytes) => {
    if (left === 0) throw Object.assign(new Error('ENOSPC: write'), { code: 'ENOSPC' });
    const taken = Math.min(left, bytes.length);
    left -= taken;
    return fs.writeSync(descriptor, bytes, 0, taken);
  };
  const log = new EventLog(file, clock, fillUp);
  log.append(started('a'));
  const error = failure(() => log.append(started('b')));
  assert.is(error.code, 'io.write');
  assert.match(error.message, /^Cannot write .*full\.jsonl: no space is left on the device\.$/);
  assert.match(error.hint!, 'resume');
  log.close();
  const reopened = new EventLog(file, clock);
  assert.equal(reopened.read(0, 2), [started('a')]);
  reopened.close();
});

test('a folder that does not exist or cannot be written is io.write', () => {
  const error = failure(() => new EventLog(path.join(folder, 'nowhere', 'events.jsonl'), clock));
  assert.is(error.code, 'io.write');
});

test.run();
