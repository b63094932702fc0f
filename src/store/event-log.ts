// The event log of a run, `events.jsonl`: append-only, one `{seq, at, sum, ...event}` a line. It is the truth; all
// other state is a fold of it. Each line's sum is a hash of its event and of the sum before it, so that no event can change
// unseen. Reopened, the log replays: events that are there already are compared, not written again, so a
// resumed run ends in the same log as an undisturbed one. It is written and read a line at a time, never held whole.
import fs from 'node:fs';
import type { Clock } from '../domain/clock.ts';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { parseEvent, type RunEvent } from '../domain/events.ts';
import { hash6 } from '../domain/hash.ts';
import { ioError } from './files.ts';
import { type LogFile, linesIn } from './lines.ts';
import { openLogFile } from './log-file.ts';

/** Writes bytes to the end of an open file and returns how many it took; `fs.writeSync` by default. */
export type WriteBytes = (descriptor: number, bytes: Uint8Array) => number;

/** Gets every event of a log as it is opened, in order, with its number and its text without number, time and sum. */
export type Fold = (event: RunEvent, number: number, body: string) => void;

const header = /^\{"seq":(\d+),"at":"([^"]*)","sum":"([\w-]{6})",/;

/** An event's line: when it was written, and its text without number, time and sum. */
export interface LoggedLine {
  readonly number: number;
  readonly at: string;
  readonly body: string;
}

/** How far a log goes. */
export interface LogEnd {
  readonly events: number;
  readonly sum: string;
}

/** Where a log is that holds nothing. */
export const emptyLog: LogEnd = { events: 0, sum: '------' };

/** Sum of an event, by its text without number, time and sum, behind the one before it. */
const sumOf = (before: string, body: string): string => hash6(before + body);

/**
 * Checks the line that follows a log of this end, and gives the event's text in it and the log's new end. Throws an Error that
 * says what is wrong with it.
 */
export function checkLine(line: string, { events, sum: before }: LogEnd): { body: string; end: LogEnd } {
  const [, seq, , sum] = header.exec(line) ?? [];
  if (seq !== String(events)) throw new Error(`it does not begin with {"seq":${events},"at":…,"sum":…`);
  const body = bodyOf(line);
  if (sum !== sumOf(before, body)) throw new Error('it does not have its sum');
  return { body, end: { events: events + 1, sum } };
}

/** Characters in which a line's number, time and sum have room. */
const headerRoom = 128;

/**
 * As `checkLine`, but of a line's bytes, which it changes before the event's: nothing is copied, and of what is not asked for no
 * text is made. Gives the event's bytes, which are the line's, and its time.
 */
export function checkBytes(
  line: Buffer,
  { events, sum: before }: LogEnd,
): { readonly body: Buffer; readonly at: string; readonly end: LogEnd } {
  const [head, seq, at, sum] = header.exec(line.toString('latin1', 0, headerRoom)) ?? [];
  if (head === undefined || seq !== String(events))
    throw new Error(`it does not begin with {"seq":${events},"at":…,"sum":…`);
  // The event begins with a bracket where the header has its last comma; before it goes the sum that it stands behind.
  const start = head.length - 1;
  line.write(`${before}{`, start - before.length, 'latin1');
  if (sum !== hash6(line.subarray(start - before.length))) throw new Error('it does not have its sum');
  return { body: line.subarray(start), at: at!, end: { events: events + 1, sum: sum! } };
}

export interface EventLogOptions {
  readonly fold?: Fold;
  readonly write?: WriteBytes;
  readonly readOnly?: boolean;
  /** Refuses a link in its place. */
  readonly noLink?: boolean;
}

export class EventLog {
  readonly path: string;
  readonly #clock: Clock;
  readonly #write: WriteBytes;
  readonly #file: LogFile;
  /** Byte at which each event's line begins. */
  readonly #starts: number[] = [];
  /** Of the last event in the file. */
  #sum = emptyLog.sum;
  /** Bytes of whole lines in the file. */
  #size = 0;
  #position = 0;

  /**
   * Opens the log, creating it if it is not there, and gives its events to `fold`. A last line without its end (the
   * process was killed while it wrote) is cut off. With `readOnly` nothing is made or cut, and nothing can be recorded; to one that
   * is compressed nothing can be added either. Throws
   * `run.corrupt` for any other line that is not an event in its place or does not have its sum, naming the line, what `fold`
   * throws, and `io.read` or `io.write`.
   */
  constructor(
    path: string,
    clock: Clock,
    { fold = () => {}, write = fs.writeSync, readOnly = false, noLink = false }: EventLogOptions = {},
  ) {
    this.path = path;
    this.#clock = clock;
    this.#write = write;
    try {
      const { O_RDONLY, O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW = 0 } = fs.constants;
      const flags = readOnly ? O_RDONLY : O_RDWR | O_APPEND | O_CREAT;
      this.#file = openLogFile(path, flags | (noLink ? O_NOFOLLOW : 0));
    } catch (error) {
      throw ioError(readOnly ? 'read' : 'write', path, error);
    }
    try {
      this.#scan(fold);
      const { descriptor, isCompressed } = this.#file;
      if (!readOnly && !isCompressed && this.#size < this.#file.size())
        fs.ftruncateSync(descriptor, this.#size);
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  /** Events recorded or replayed so far: the number of the next one. */
  get position(): number {
    return this.#position;
  }

  /** Events in the file, and the sum of the last one: two logs that have these in common hold the same events so far. */
  get end(): LogEnd {
    return { events: this.#starts.length, sum: this.#sum };
  }

  /** Whether the log holds, as its first ones, the events that ended so. */
  holds({ events, sum }: LogEnd): boolean {
    if (events === 0) return true;
    if (events > this.#starts.length) return false;
    const [line] = this.#lines(events - 1, events);
    return header.exec(line!)?.[3] === sum;
  }

  /** Whether events of an earlier process are still to be met. */
  get replaying(): boolean {
    return this.#position < this.#starts.length;
  }

  /**
   * Records an event. While replaying, the event must be the one that the log already holds here; throws
   * `run.diverged` if it is not, and `io.write` when it cannot be written.
   */
  append(event: RunEvent): void {
    const body = JSON.stringify(event);
    if (this.replaying) {
      const [line] = this.#lines(this.#position, this.#position + 1);
      if (bodyOf(line!) !== body) {
        throw new OptimaError(
          'run.diverged',
          `${this.path}:${this.#position + 1}: the log holds another event than the one (${event.type}) that this process arrives at.`,
          {
            hint: 'Resume with the model, engine and version that began the run, or start a new one.',
          },
        );
      }
    } else {
      const at = new Date(this.#clock.now()).toISOString();
      const sum = sumOf(this.#sum, body);
      this.#appendLine(`{"seq":${this.#position},"at":"${at}","sum":"${sum}",${body.slice(1)}\n`);
      this.#sum = sum;
    }
    this.#position++;
  }

  /** While replaying: moves past the events numbered below `position`. */
  skipTo(position: number): void {
    this.#position = position;
  }

  /**
   * While replaying: moves past the first event, from here on, for which `isEnd` holds, and returns the numbers of the
   * first event passed and of the one behind the last. Returns null and stays here when there is none.
   */
  replayThrough(isEnd: (event: RunEvent) => boolean): { readonly from: number; readonly to: number } | null {
    const from = this.#position;
    let to = from;
    for (const event of this.ahead()) {
      to++;
      if (!isEnd(event)) continue;
      this.#position = to;
      return { from, to };
    }
    return null;
  }

  /** The events numbered `from` (inclusive) to `to` (exclusive), validated, each read when it is asked for. */
  *events(from: number, to: number = this.#position): Generator<RunEvent> {
    let number = from;
    for (const line of this.#lines(from, to)) yield this.#parse(line, number++);
  }

  /** The lines numbered `from` (inclusive) to `to` (exclusive): what was checked when the log was opened is not checked again. */
  *lines(from: number, to: number): Generator<LoggedLine> {
    let number = from;
    for (const line of this.#lines(from, to)) {
      const [, , at] = header.exec(line) ?? [];
      yield { number: number++, at: at!, body: bodyOf(line) };
    }
  }

  /** The events of an earlier process that are still to be met. */
  ahead(): Generator<RunEvent> {
    return this.events(this.#position, this.#starts.length);
  }

  /** Forces what was recorded onto the disk. */
  sync(): void {
    if (this.#file.isCompressed) return;
    try {
      fs.fsyncSync(this.#file.descriptor);
    } catch (error) {
      throw ioError('write', this.path, error);
    }
  }

  close(): void {
    this.#file.close();
  }

  #appendLine(line: string): void {
    if (this.#file.isCompressed) {
      throw new OptimaError('io.write', `Cannot write ${this.path}: it is compressed.`, {
        hint: `Unpack it first: gunzip ${this.path}`,
      });
    }
    const bytes = Buffer.from(line);
    try {
      for (let written = 0; written < bytes.length; ) {
        written += this.#write(this.#file.descriptor, bytes.subarray(written));
      }
    } catch (error) {
      throw ioError('write', this.path, error);
    }
    this.#starts.push(this.#size);
    this.#size += bytes.length;
  }

  #parse(line: string, number: number): RunEvent {
    try {
      return parseEvent(JSON.parse(line));
    } catch (error) {
      throw this.#corrupt(number + 1, messageOf(error));
    }
  }

  /** The lines numbered `from` to `to`, without their ends. */
  *#lines(from: number, to: number): Generator<string> {
    const end = to < this.#starts.length ? this.#starts[to]! : this.#size;
    for (const [line] of linesIn(this.#file, this.#starts[from] ?? this.#size, end)) yield line;
  }

  #scan(fold: Fold): void {
    for (const [line, bytes] of linesIn(this.#file, 0, this.#file.size())) {
      const number = this.#starts.length;
      const { body, end } = this.#check(line);
      fold(this.#parse(line, number), number, body);
      this.#sum = end.sum;
      this.#starts.push(this.#size);
      this.#size += bytes;
    }
  }

  #check(line: string): ReturnType<typeof checkLine> {
    try {
      return checkLine(line, this.end);
    } catch (error) {
      throw this.#corrupt(this.#starts.length + 1, messageOf(error));
    }
  }

  #corrupt(line: number, problem: string): OptimaError {
    return new OptimaError('run.corrupt', `${this.path}:${line}: not an event of this log: ${problem}.`, {
      hint: 'The file was changed or damaged; restore it or start a new run.',
    });
  }
}

/** A line's event as it was given to `append`: without number, time and sum. */
function bodyOf(line: string): string {
  return line.replace(header, '{');
}
