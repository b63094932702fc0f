import fs from 'node:fs';
import path from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { type LoggedEvent, readEvents } from '../../src/store/read-events.ts';
import { temporaryFolder } from '../support/run.ts';

const folder = temporaryFolder('read-events');
test.after(() => fs.rmSync(folder, { recursive: true }));
const line = (seq: number) =>
  JSON.stringify({ seq, at: '2026-01-01', type: 'phase.started', phase: `p${seq}` });

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
  const many = Array.from({ length: 5000 }, (_, seq) => line(seq));
  const [events, error] = await read(`${many.join('\n')}\n`);
  assert.is(error, null);
  assert.equal(
    events.map((event) => JSON.stringify(event)),
    many,
  );
});

test('a line that is still being written is not there yet, and is left as it is', async () => {
  const text = `${line(0)}\n${line(1).slice(0, 20)}`;
  const [events] = await read(text);
  assert.equal(events, [JSON.parse(line(0))]);
});

test('a line that is no event is named, once those before it were given', async () => {
  for (const wrong of [
    '{',
    '{"seq":1,"at":"","type":"phase.begun"}',
    '{"seq":1,"at":"","type":"phase.started"}',
  ]) {
    const [events, error] = await read(`${line(0)}\n${wrong}\n`);
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
