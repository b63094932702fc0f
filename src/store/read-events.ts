// Reads the log of a run, from this program or another, while it is being written or long after. Changes nothing.
import { setImmediate as nextTick } from 'node:timers/promises';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { parseEvent, type RunEvent } from '../domain/events.ts';
import { checkLine, emptyLog, type LogEnd } from './event-log.ts';
import { ioError } from './files.ts';
import { linesIn } from './lines.ts';
import { openLogOf } from './log-file.ts';

/** Events that are read before others get a turn. */
const eventsAtOnce = 256;

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
  const log = openLogOf(folder);
  let end = emptyLog;
  try {
    for (const [line] of linesIn(log, 0, Number.POSITIVE_INFINITY)) {
      const where = `${log.path}:${end.events + 1}`;
      end = endBehind(line, end, where);
      yield parseLine(line, where);
      if (end.events % eventsAtOnce === 0) await nextTick();
    }
  } catch (error) {
    throw ioError('read', log.path, error);
  } finally {
    log.close();
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
