// Reads the log of a run, from this program or another, while it is being written or long after. Changes nothing.
import fs from 'node:fs';
import path from 'node:path';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { parseEvent, type RunEvent } from '../domain/events.ts';
import { checkLine, emptyLog, type LogEnd } from './event-log.ts';
import { ioError } from './files.ts';

/** An event as a line of the log holds it: with its number, from 0, and when it was written (ISO 8601). */
export type LoggedEvent = RunEvent & { readonly seq: number; readonly at: string };

/**
 * The events of a run's folder in their order, each read and validated when it is asked for; up to the last whole line, as
 * a run may be writing the next one. Throws `run.missing` where there is no log, `run.corrupt` with the line that is no
 * event, and `io.read`.
 *
 * ```ts
 * for await (const event of readEvents('runs/mine')) if (event.type === 'turn.taken') console.log(event.turn.text);
 * ```
 */
export async function* readEvents(folder: string): AsyncGenerator<LoggedEvent, void, undefined> {
  const file = path.join(folder, 'events.jsonl');
  let rest = '';
  let end = emptyLog;
  try {
    for await (const chunk of fs.createReadStream(file, { encoding: 'utf8', highWaterMark: 2 ** 18 })) {
      const lines = `${rest}${chunk}`.split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const where = `${file}:${end.events + 1}`;
        end = endBehind(line, end, where);
        yield parseLine(line, where);
      }
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOENT' && code !== 'ENOTDIR') throw ioError('read', file, error);
    throw new OptimaError('run.missing', `${folder} is not a run folder: it has no events.jsonl.`);
  }
}

function endBehind(line: string, end: LogEnd, where: string): LogEnd {
  try {
    return checkLine(line, end).end;
  } catch (error) {
    throw new OptimaError('run.corrupt', `${where}: not an event of this log: ${messageOf(error)}.`);
  }
}

function parseLine(line: string, where: string): LoggedEvent {
  try {
    const { seq, at, sum: _, ...event } = JSON.parse(line);
    return { seq, at, ...parseEvent(event) };
  } catch (error) {
    throw new OptimaError('run.corrupt', `${where}: ${messageOf(error)}`);
  }
}
