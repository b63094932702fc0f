// The event log of a run, `events.jsonl`: append-only, one `{seq, at, ...event}` a line. It is the truth; all
// other state is a fold of it. Reopened, it first replays: events that are there already are compared, not
// written again, so a resumed run ends in the same log as an undisturbed one.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import type { Clock } from '../domain/clock.ts';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { parseEvent, type RunEvent } from '../domain/events.ts';
import { ioError } from './files.ts';

/** Writes bytes to the end of an open file and returns how many it took; `fs.writeSync` by default. */
export type WriteBytes = (descriptor: number, bytes: Uint8Array) => number;

const header = /^\{"seq":(\d+),"at":"[^"]*",/;
const newline = 0x0a;

export class EventLog {
  readonly path: string;
  readonly #clock: Clock;
  readonly #write: WriteBytes;
  readonly #descriptor: number;
  /** Byte at which each event's line begins. */
  readonly #starts: number[] = [];
  /** Bytes of whole lines in the file. */
  #size = 0;
  #position = 0;

  /**
   * Opens the log, creating it if it is not there. A last line without its end (the process was killed while
   * it wrote) is cut off. Throws `run.corrupt` for any other line that is not an event in its place, naming
   * the line, and `io.read` or `io.write`.
   */
  constructor(path: string, clock: Clock, write: WriteBytes = fs.writeSync) {
    this.path = path;
    this.#clock = clock;
    this.#write = write;
    try {
      this.#descriptor = fs.openSync(path, 'a+');
    } catch (error) {
      throw ioError('write', path, error);
    }
    try {
      this.#scan();
    } catch (error) {
      fs.closeSync(this.#descriptor);
      throw error;
    }
  }

  /** Events recorded or replayed so far: the number of the next one. */
  get position(): number {
    return this.#position;
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
      this.#appendLine(`{"seq":${this.#position},"at":"${at}",${body.slice(1)}\n`);
    }
    this.#position++;
  }

  /**
   * While replaying: moves past the first event, from here on, for which `isEnd` holds, and returns the events
   * passed. Returns null and stays here when there is none.
   */
  replayThrough(isEnd: (event: RunEvent) => boolean): RunEvent[] | null {
    const passed: RunEvent[] = [];
    for (const event of this.#events(this.#position, this.#starts.length)) {
      passed.push(event);
      if (isEnd(event)) {
        this.#position += passed.length;
        return passed;
      }
    }
    return null;
  }

  /** The events numbered `from` (inclusive) to `to` (exclusive), validated. */
  read(from: number, to: number = this.#position): RunEvent[] {
    return [...this.#events(from, to)];
  }

  /** Hash of the events from `from` on, timestamps left out: 16 hexadecimal digits of a SHA-256. */
  hash(from: number, to: number = this.#position): string {
    const hash = createHash('sha256');
    for (const line of this.#lines(from, to)) hash.update(bodyOf(line)).update('\n');
    return hash.digest('hex').slice(0, 16);
  }

  /** Forces what was recorded onto the disk. */
  sync(): void {
    try {
      fs.fsyncSync(this.#descriptor);
    } catch (error) {
      throw ioError('write', this.path, error);
    }
  }

  close(): void {
    fs.closeSync(this.#descriptor);
  }

  #appendLine(line: string): void {
    const bytes = Buffer.from(line);
    try {
      for (let written = 0; written < bytes.length; ) {
        written += this.#write(this.#descriptor, bytes.subarray(written));
      }
    } catch (error) {
      throw ioError('write', this.path, error);
    }
    this.#starts.push(this.#size);
    this.#size += bytes.length;
  }

  *#events(from: number, to: number): Generator<RunEvent> {
    let number = from;
    for (const line of this.#lines(from, to)) {
      number++;
      try {
        yield parseEvent(JSON.parse(line));
      } catch (error) {
        throw this.#corrupt(number, messageOf(error));
      }
    }
  }

  /** The lines numbered `from` to `to`, without their ends. */
  *#lines(from: number, to: number): Generator<string> {
    const end = to < this.#starts.length ? this.#starts[to]! : this.#size;
    for (const bytes of this.#split(this.#starts[from] ?? this.#size, end)) yield bytes.toString();
  }

  /** Splits a range of bytes into lines, reading a piece at a time: a log may be longer than a string. */
  *#split(from: number, to: number): Generator<Buffer> {
    let rest: Buffer = Buffer.alloc(0);
    for (let offset = from; offset < to; ) {
      const piece = Buffer.alloc(Math.min(1 << 20, to - offset));
      const count = fs.readSync(this.#descriptor, piece, 0, piece.length, offset);
      if (count === 0) break;
      offset += count;
      const bytes = Buffer.concat([rest, piece.subarray(0, count)]);
      let start = 0;
      for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
        yield bytes.subarray(start, end);
        start = end + 1;
      }
      rest = bytes.subarray(start);
    }
  }

  #scan(): void {
    const { size } = fs.fstatSync(this.#descriptor);
    for (const bytes of this.#split(0, size)) {
      const line = bytes.toString();
      const number = this.#starts.length;
      if (header.exec(line)?.[1] !== String(number)) {
        throw this.#corrupt(number + 1, `it does not begin with {"seq":${number},"at":…`);
      }
      try {
        JSON.parse(line);
      } catch (error) {
        throw this.#corrupt(number + 1, messageOf(error));
      }
      this.#starts.push(this.#size);
      this.#size += bytes.length + 1;
    }
    if (this.#size < size) fs.ftruncateSync(this.#descriptor, this.#size);
  }

  #corrupt(line: number, problem: string): OptimaError {
    return new OptimaError('run.corrupt', `${this.path}:${line}: not an event of this log: ${problem}.`, {
      hint: 'The file was changed or damaged; restore it or start a new run.',
    });
  }
}

/** A line's event as it was given to `append`: without number and time. */
function bodyOf(line: string): string {
  return line.replace(header, '{');
}
