import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { RunEvent } from '../../src/domain/events.ts';
import { EventLog, type WriteBytes } from '../../src/store/event-log.ts';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'optima-log-'));
test.after(() => fs.rmSync(folder, { recursive: true }));

let time = 0;
const clock = { now: () => time++ * 1000 };
const started = (phase: string): RunEvent => ({ type: 'phase.started', phase });
const read = (log: EventLog, from: number, to?: number): RunEvent[] => [...log.events(from, to)];
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
  assert.equal(read(log, 0, 2), [started('a'), started('b')]);
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

test('an event of an unknown shape is corrupt as soon as the log is opened, and nothing is cut', () => {
  const file = writeLog('shape.jsonl', [started('a')]);
  const log = new EventLog(file, clock);
  log.skipTo(1);
  log.append({ type: 'phase.started', phase: 7 as unknown as string });
  log.close();
  const before = fs.readFileSync(file, 'utf8');
  const error = failure(() => new EventLog(file, clock));
  assert.is(error.code, 'run.corrupt');
  assert.match(error.message, /shape\.jsonl:2: .*phase\.started: field phase/);
  assert.is(fs.readFileSync(file, 'utf8'), before);
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
  assert.equal(log.replayThrough(isPhase('b')), { from: 0, to: 2 });
  assert.is(log.position, 2);
  assert.is(log.replayThrough(isPhase('b')), null, 'what was passed is passed');
  assert.is(log.position, 2);
  log.close();
});

test('a full disk is one clear line, and the log is whole again when it is reopened', () => {
  const file = path.join(folder, 'full.jsonl');
  let left = 140;
  const fillUp: WriteBytes = (descriptor, bytes) => {
    if (left === 0) throw Object.assign(new Error('ENOSPC: write'), { code: 'ENOSPC' });
    const taken = Math.min(left, bytes.length);
    left -= taken;
    return fs.writeSync(descriptor, bytes, 0, taken);
  };
  const log = new EventLog(file, clock, { write: fillUp });
  log.append(started('a'));
  const error = failure(() => log.append(started('b')));
  assert.is(error.code, 'io.write');
  assert.match(error.message, /^Cannot write .*full\.jsonl: no space is left on the device\.$/);
  assert.match(error.hint!, 'resume');
  log.close();
  const reopened = new EventLog(file, clock);
  assert.equal(read(reopened, 0, 2), [started('a')]);
  reopened.close();
});

test('a folder that does not exist or cannot be written is io.write', () => {
  const error = failure(() => new EventLog(path.join(folder, 'nowhere', 'events.jsonl'), clock));
  assert.is(error.code, 'io.write');
});

/** Calls `run` while a function of `fs` is another one. */
function withFs<Name extends 'fsyncSync' | 'readSync' | 'openSync' | 'closeSync', Result>(
  name: Name,
  stand: (real: (typeof fs)[Name]) => unknown,
  run: () => Result,
): Result {
  const real = fs[name];
  fs[name] = stand(real) as (typeof fs)[Name];
  try {
    return run();
  } finally {
    fs[name] = real;
  }
}

const piece = 1 << 20;

test('lines longer than a piece, and characters that lie across two, are read as they were written', () => {
  const file = path.join(folder, 'long.jsonl');
  const log = new EventLog(file, { now: () => 0 });
  // Three bytes a character: of any three places of a piece's end, two fall inside one.
  const events = [
    'a',
    ...[0, 1, 2].map((shift) => `${'x'.repeat(shift)}${'€'.repeat(400_000)}`),
    '😀'.repeat(700_000),
    'z',
  ].map(started);
  const appended: RunEvent[] = [];
  for (const event of events) {
    log.append(event);
    appended.push(...read(log, log.position - 1));
  }
  assert.equal(appended, events);
  const { end } = log;
  log.close();
  const sizes: number[] = [];
  withFs(
    'readSync',
    (real) => (descriptor: number, buffer: Buffer, offset: number, length: number, position: number) => {
      sizes.push(length);
      return real(descriptor, buffer, offset, length, position);
    },
    () => {
      const again = new EventLog(file, { now: () => 0 });
      for (const event of events) again.append(event);
      assert.equal(read(again, 0), events);
      assert.equal(read(again, 3, 5), events.slice(3, 5));
      assert.equal(again.end, end);
      again.append(started('end'));
      assert.equal(read(again, 5), [started('z'), started('end')]);
      again.close();
    },
  );
  assert.is(Math.max(...sizes), piece);
  assert.is(fs.readFileSync(file, 'utf8').split('\n').length, events.length + 2);
});

test('a system that reads or writes a few bytes at a time changes nothing', () => {
  const events = ['a', 'bé', '😀'].map(started);
  const whole = writeLog('at-once.jsonl', events);
  const file = path.join(folder, 'bit-by-bit.jsonl');
  const write: WriteBytes = (descriptor, bytes) => fs.writeSync(descriptor, bytes, 0, 1);
  const log = new EventLog(file, clock, { write });
  for (const event of events) log.append(event);
  assert.is(withoutTimes(file), withoutTimes(whole));
  withFs(
    'readSync',
    (real) => (descriptor: number, buffer: Buffer, offset: number, length: number, position: number) =>
      real(descriptor, buffer, offset, Math.min(length, 7), position),
    () => assert.equal(read(log, 0), events),
  );
  fs.truncateSync(file, fs.readFileSync(file, 'utf8').indexOf('\n') + 1);
  assert.equal(read(log, 0), events.slice(0, 1), 'a log that got shorter ends where it ends');
  log.close();
});

test('a line is the number, the time, the sum and the event, and nothing else', () => {
  const file = path.join(folder, 'line.jsonl');
  const log = new EventLog(file, { now: () => Date.UTC(2026, 1, 3, 4, 5, 6, 7) });
  log.append(started('a'));
  log.append({ type: 'cohort.completed', phase: 'a', cohort: 0 });
  log.close();
  const at = '"at":"2026-02-03T04:05:06.007Z"';
  const bodies = [
    '{"type":"phase.started","phase":"a"}',
    '{"type":"cohort.completed","phase":"a","cohort":0}',
  ];
  let sum = '------';
  const lines = bodies.map((body, seq) => {
    sum = createHash('sha256')
      .update(sum + body)
      .digest('base64url')
      .slice(0, 6);
    return `{"seq":${seq},${at},"sum":"${sum}",${body.slice(1)}\n`;
  });
  assert.is(fs.readFileSync(file, 'utf8'), lines.join(''));
});

test('any byte that changes is found in its line, or changes nothing: sums follow from the events and not from their times', () => {
  const file = writeLog('sums.jsonl', ['a', 'b€', 'c'].map(started));
  const other = new EventLog(writeLog('sums-2.jsonl', ['a', 'b€', 'c'].map(started)), { now: () => 7 });
  const whole = fs.readFileSync(file);
  const ends: number[] = [...whole.keys()].filter((at) => whole[at] === 10);
  for (const at of whole.keys()) {
    for (const bit of [0, 3, 6]) {
      const changed = Buffer.from(whole);
      changed[at]! ^= 1 << bit;
      fs.writeFileSync(file, changed);
      const line = ends.findIndex((end) => at <= end) + 1;
      try {
        const log = new EventLog(file, clock);
        const lastEnd = at === ends.at(-1);
        assert.is(log.end.events, lastEnd ? 2 : 3);
        if (!lastEnd) assert.equal(log.end, other.end, `byte ${at} is of a time`);
        log.close();
      } catch (error) {
        assert.instance(error, OptimaError);
        assert.match((error as OptimaError).message, `sums.jsonl:${line}:`);
      }
    }
  }
  other.close();
});

test('a log knows whether it goes on from where another one ended', () => {
  const file = writeLog('ends.jsonl', ['a', 'b'].map(started));
  const log = new EventLog(file, clock);
  const { end } = log;
  log.close();
  const longer = new EventLog(writeLog('ends-2.jsonl', ['a', 'b', 'c'].map(started)), clock);
  const otherwise = new EventLog(writeLog('ends-3.jsonl', ['x', 'b', 'c'].map(started)), clock);
  const shorter = new EventLog(writeLog('ends-4.jsonl', ['a'].map(started)), clock);
  assert.equal(
    [longer, otherwise, shorter].map((each) => each.holds(end)),
    [true, false, false],
  );
  assert.ok(shorter.holds({ events: 0, sum: '------' }));
  for (const each of [longer, otherwise, shorter]) each.close();
});

test('a log that is only read is left as it is, and a line without its end is none of it', () => {
  const file = writeLog('read-only.jsonl', ['a', 'b'].map(started));
  fs.truncateSync(file, fs.statSync(file).size - 3);
  const before = fs.readFileSync(file, 'utf8');
  const log = new EventLog(file, clock, { readOnly: true });
  assert.equal(read(log, 0, 2), [started('a')]);
  log.close();
  assert.is(fs.readFileSync(file, 'utf8'), before);
  const missing = failure(() => new EventLog(path.join(folder, 'none.jsonl'), clock, { readOnly: true }));
  assert.is(missing.code, 'io.read');
});

test('replaying begins where the process stands and ends with the log', () => {
  const log = new EventLog(writeLog('stand.jsonl', ['a', 'b', 'a'].map(started)), clock);
  const isA = (event: RunEvent) => event.type === 'phase.started' && event.phase === 'a';
  assert.equal(log.replayThrough(isA), { from: 0, to: 1 });
  const passed = log.replayThrough(isA)!;
  assert.equal(passed, { from: 1, to: 3 });
  assert.equal(read(log, passed.from, passed.to), [started('b'), started('a')]);
  assert.is(log.position, 3);
  assert.not(log.replaying);
  log.append(started('a'));
  assert.is(log.replayThrough(isA), null, 'what this process wrote is not replayed');
  assert.is(log.position, 4);
  log.close();
});

test('after a divergence the log is as it was', () => {
  const file = writeLog('kept.jsonl', [started('a'), started('b')]);
  const before = fs.readFileSync(file, 'utf8');
  const log = new EventLog(file, clock);
  failure(() => log.append(started('b')));
  log.append(started('a'));
  assert.is(log.position, 1);
  log.close();
  assert.is(fs.readFileSync(file, 'utf8'), before);
});

test('a line of an unknown shape is named by its number, wherever reading began', () => {
  const file = writeLog('shape-3.jsonl', ['a', 'b', 'c'].map(started));
  const whole = fs.readFileSync(file, 'utf8');
  const log = new EventLog(file, clock);
  // Changed under an open log, by as many bytes.
  const last = whole.lastIndexOf('phase.started');
  fs.writeFileSync(file, `${whole.slice(0, last)}phase.stirred${whole.slice(last + 13)}`);
  assert.match(failure(() => read(log, 1, 3)).message, 'shape-3.jsonl:3:');
  assert.match(failure(() => log.replayThrough(() => false)).message, 'shape-3.jsonl:3:');
  assert.is(log.position, 0);
  assert.equal(read(log, 1, 2), [started('b')], 'the lines before it are read');
  log.close();
  assert.match(failure(() => new EventLog(file, clock)).message, 'shape-3.jsonl:3:');
});

test('a line that lacks its time, or does not begin with its number, is not one of this log', () => {
  for (const line of ['', '{"seq":0,"type":"phase.started"}', ' {"seq":0,"at":"x","type":"phase.started"}']) {
    const file = path.join(folder, 'header.jsonl');
    fs.writeFileSync(file, `${line}\n`);
    assert.match(failure(() => new EventLog(file, clock)).message, 'header.jsonl:1:');
  }
});

test('what was recorded is forced onto the disk by sync, and only then', () => {
  const opened: number[] = [];
  const file = path.join(folder, 'sync.jsonl');
  const log = withFs(
    'openSync',
    (real) =>
      (...args: Parameters<typeof fs.openSync>) => {
        const descriptor = real(...args);
        opened.push(descriptor);
        return descriptor;
      },
    () => new EventLog(file, clock),
  );
  const synced: number[] = [];
  withFs(
    'fsyncSync',
    () => (descriptor: number) => synced.push(descriptor),
    () => {
      log.append(started('a'));
      assert.equal(synced, []);
      log.sync();
      assert.equal(synced, opened);
    },
  );
  const full = () => () => {
    throw Object.assign(new Error('fsync'), { code: 'ENOSPC' });
  };
  assert.match(
    failure(() => withFs('fsyncSync', full, () => log.sync())).message,
    /^Cannot write .*no space/,
  );
  log.close();
  assert.throws(() => fs.fstatSync(opened[0]!), /EBADF/);
});

test('a log that cannot be opened leaves no file open', () => {
  const file = path.join(folder, 'none.jsonl');
  fs.writeFileSync(file, 'none\n');
  const opened: number[] = [];
  withFs(
    'openSync',
    (real) =>
      (...args: Parameters<typeof fs.openSync>) => {
        opened.push(real(...args));
        return opened.at(-1);
      },
    () => failure(() => new EventLog(file, clock)),
  );
  assert.is(opened.length, 1);
  assert.throws(() => fs.fstatSync(opened[0]!), /EBADF/);
});

test('who opens a log is given every whole line of it: the event, its number, its text without number and time', () => {
  const events = ['a', 'b€'].map(started);
  const file = writeLog('fold.jsonl', events);
  fs.appendFileSync(file, '{"seq":2,"at":"1970-01-01T00:00:00.000Z","type":"phase.started","phase":"torn"}');
  const seen: unknown[] = [];
  const log = new EventLog(file, clock, { fold: (...given) => seen.push(given) });
  assert.equal(
    seen,
    events.map((event, number) => [event, number, JSON.stringify(event)]),
  );
  log.append(events[0]!);
  log.append(events[1]!);
  log.append(started('c'));
  assert.is(seen.length, 2, 'only what was there when it was opened');
  log.close();
});

test('what the fold throws is thrown, at the event in question, and no file stays open', () => {
  const file = writeLog('refused.jsonl', ['a', 'b', 'c'].map(started));
  const refusal = new OptimaError('run.corrupt', 'Not b.');
  const seen: number[] = [];
  const opened: number[] = [];
  const open = () =>
    new EventLog(file, clock, {
      fold: (event, number) => {
        seen.push(number);
        if (event.type === 'phase.started' && event.phase === 'b') throw refusal;
      },
    });
  const error = withFs(
    'openSync',
    (real) =>
      (...args: Parameters<typeof fs.openSync>) => {
        opened.push(real(...args));
        return opened.at(-1);
      },
    () => failure(open),
  );
  assert.is(error, refusal);
  assert.equal(seen, [0, 1]);
  assert.throws(() => fs.fstatSync(opened[0]!), /EBADF/);
});

test('skipping moves past what need not be arrived at again, and what follows is compared', () => {
  const file = writeLog('skip.jsonl', ['a', 'b', 'c'].map(started));
  const before = fs.readFileSync(file, 'utf8');
  const log = new EventLog(file, clock);
  log.skipTo(2);
  assert.is(log.position, 2);
  assert.ok(log.replaying);
  assert.is(failure(() => log.append(started('a'))).code, 'run.diverged');
  log.append(started('c'));
  assert.not(log.replaying);
  assert.equal(read(log, 0), ['a', 'b', 'c'].map(started));
  log.close();
  assert.is(fs.readFileSync(file, 'utf8'), before);
});

test('an event is read when it is asked for, and reading ends with who asks', () => {
  const text = 'x'.repeat(300_000);
  const events = Array.from({ length: 20 }, (_, index) => started(`${index}${text}`));
  const log = new EventLog(writeLog('lazy.jsonl', events), clock);
  let bytes = 0;
  withFs(
    'readSync',
    (real) => (descriptor: number, buffer: Buffer, offset: number, length: number, position: number) => {
      const count = real(descriptor, buffer, offset, length, position);
      bytes += count;
      return count;
    },
    () => {
      const all = log.events(0, 20);
      assert.is(bytes, 0, 'nothing is read before');
      assert.equal(all.next().value, events[0]);
      assert.is(bytes, piece);
      for (const event of log.events(5, 20)) {
        assert.equal(event, events[5]);
        break;
      }
      assert.is(bytes, 2 * piece, 'one piece more');
      bytes = 0;
      assert.equal(
        log.replayThrough((event) => event.type === 'phase.started'),
        { from: 0, to: 1 },
      );
      assert.is(bytes, piece, 'the search for an end stops there');
    },
  );
  log.close();
});

test('events are those up to where the process stood when it asked', () => {
  const log = new EventLog(writeLog('stood.jsonl', ['a', 'b', 'c'].map(started)), clock);
  log.append(started('a'));
  const soFar = log.events(0);
  log.append(started('b'));
  log.append(started('c'));
  assert.equal([...soFar], [started('a')]);
  const behind = log.events(2);
  log.append(started('d'));
  assert.equal([...behind], [started('c')]);
  log.close();
});

test.run();
