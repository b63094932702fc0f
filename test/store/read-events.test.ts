import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import type { RunEvent } from '../../src/domain/events.ts';
import { EventLog } from '../../src/store/event-log.ts';
import { type LoggedEvent, readEvents } from '../../src/store/read-events.ts';
import { temporaryFolder } from '../support/run.ts';

const folder = temporaryFolder('read-events');
test.after(() => fs.rmSync(folder, { recursive: true }));
/** The lines of a log of these events. */
function linesOf(events: readonly object[]): string[] {
  const file = path.join(fs.mkdtempSync(path.join(folder, 'log-')), 'events.jsonl');
  const log = new EventLog(file, { now: () => 0 });
  for (const event of events) log.append(event as RunEvent);
  log.close();
  return fs.readFileSync(file, 'utf8').trimEnd().split('\n');
}
const phases = (count: number) =>
  Array.from({ length: count }, (_, n) => ({ type: 'phase.started', phase: `p${n}` }));

/** The events of a log with this text, and what reading it ended with. */
async function read(text: string | null): Promise<[events: LoggedEvent[], error: OptimaError | null]> {
  const run = fs.mkdtempSync(path.join(folder, 'run-'));
  if (text !== null) fs.writeFileSync(path.join(run, 'events.jsonl'), text);
  const events: LoggedEvent[] = [];
  try {
    for await (const event of readEvents(run)) events.push(event);
    return [events, null];
  } catch (error) {
    assert.instance(error, OptimaError);
    return [events, error as OptimaError];
  }
}

test('events come in order, with number and time', async () => {
  const many = phases(5000);
  const [events, error] = await read(`${linesOf(many).join('\n')}\n`);
  assert.is(error, null);
  assert.equal(
    events,
    many.map((event, seq) => ({ seq, at: '1970-01-01T00:00:00.000Z', ...event })),
  );
});

test('a line that is still being written is not there yet, and is left as it is', async () => {
  const [first, second] = linesOf(phases(2));
  const [events] = await read(`${first}\n${second!.slice(0, 20)}`);
  assert.equal(
    events.map(({ seq }) => seq),
    [0],
  );
});

test('a line that is no event is named, once those before it were given', async () => {
  const [first, second] = linesOf(phases(2));
  for (const wrong of [
    '{',
    second!.replace('"seq":1', '"seq":2'),
    second!.replace('p1', 'p2'),
    linesOf([...phases(1), { type: 'phase.begun' }])[1],
    linesOf([...phases(1), { type: 'phase.started' }])[1],
  ]) {
    const [events, error] = await read(`${first}\n${wrong}\n`);
    assert.is(events.length, 1);
    assert.is(error!.code, 'run.corrupt');
    assert.match(error!.message, /events\.jsonl:2: /);
  }
});

test('a folder without a log is no run', async () => {
  const [, error] = await read(null);
  assert.is(error!.code, 'run.missing');
});

test.run();
