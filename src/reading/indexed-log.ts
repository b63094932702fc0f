// The log of a run with its index: any of its events is one seek. Read-only, whoever writes it meanwhile.
import fs from 'node:fs';
import path from 'node:path';
import { OptimaError } from '../domain/errors.ts';
import { parseEvent, type RunEvent } from '../domain/events.ts';
import { checkBytes, type LogEnd, type LoggedLine } from '../store/event-log.ts';
import { requireWithin } from '../store/files.ts';
import { type LogFile, lineBytesIn } from '../store/lines.ts';
import { logPath, openLogOf } from '../store/log-file.ts';
import { readIndex, writeIndex } from './index-file.ts';
import { emptyIndex, type IndexData, marked, notAnEvent, type PlaceBefore, RunIndex } from './run-index.ts';

/** Where the index of a run is. */
export const indexPath = (folder: string): string => path.join(folder, 'events.index');

/** Bytes that are searched at once. */
const partBytes = 4 << 20;
/** Bytes by which a log grows before its index is written again. */
const worthWriting = 1 << 20;

/** Bytes as a text in which letters from a to z have one case, for comparison alone. */
const folded = (bytes: Buffer): string => bytes.toString('latin1').toLowerCase();

/** An event as its line has it, not yet validated, with its number. */
export interface RawEvent {
  readonly number: number;
  readonly value: { readonly type?: unknown } & Readonly<Record<string, unknown>>;
}

export class IndexedLog {
  readonly folder: string;
  /** Where it is. */
  readonly file: string;
  readonly #log: LogFile;
  readonly #placeBefore: PlaceBefore;
  #index: RunIndex;
  /** Bytes of the log that the index in the file reaches. */
  #written = 0;
  /** Why the index that was there was not taken; null where it was, or there was none. */
  problem: string | null;
  readonly #afresh: boolean;

  /**
   * `placeBefore` reads on: what it is asked for lies in what the log has already said. `afresh`: the index in the file is neither
   * taken nor written. Throws `run.missing`, `run.corrupt`, `io.read`.
   */
  constructor(folder: string, placeBefore: PlaceBefore, afresh = false) {
    this.folder = folder;
    requireWithin(folder, logPath(folder));
    this.#log = openLogOf(folder);
    this.file = this.#log.path;
    this.#placeBefore = placeBefore;
    this.#afresh = afresh;
    const found = afresh ? null : readIndex(indexPath(folder));
    const isSound = found !== null && !(found instanceof Error);
    const fits = isSound && this.#holdsEndOf(found);
    this.#index = new RunIndex(fits ? found : emptyIndex(), placeBefore);
    this.#written = this.end.bytes;
    this.problem = found instanceof Error ? found.message : isSound && !fits ? 'it is of another log' : null;
  }

  get index(): RunIndex {
    return this.#index;
  }

  /** How far the log has been read: events, sum of the last, bytes. */
  get end(): RunIndex['data']['end'] {
    return this.#index.data.end;
  }

  /**
   * Takes in what the log has gained, at most so many bytes and a line; gives the bytes that are left. A last line without its
   * end is left for the next time.
   */
  refresh(mostBytes = Number.POSITIVE_INFINITY): number {
    const { file } = this;
    const { ino, nlink } = fs.fstatSync(this.#log.descriptor);
    const size = this.#log.size();
    const { bytes: before } = this.end;
    const there = fs.statSync(file, { throwIfNoEntry: false });
    if (nlink === 0 || there?.ino !== ino || size < before) {
      throw new OptimaError('run.corrupt', `${file}: it was cut or replaced while it was read.`, {
        hint: 'Open the run again.',
      });
    }
    const isWhole = this.#takeIn(size, before + mostBytes);
    if (!this.#afresh) this.#write();
    return isWhole ? 0 : size - this.end.bytes;
  }

  /** Whether it has come to the end. */
  #takeIn(size: number, most: number): boolean {
    try {
      for (const line of lineBytesIn(this.#log, this.end.bytes, size)) {
        this.#index.add(line, this.file);
        if (this.end.bytes >= most) return false;
      }
      return true;
    } catch (error) {
      if (this.#written === 0) throw error;
      // Is it the log, or an index that others made up? Read from the start on, the log says it.
      this.#index = new RunIndex(emptyIndex(), this.#placeBefore);
      this.#written = 0;
      this.problem = 'what follows it in the log does not follow from it';
      return this.#takeIn(size, Number.POSITIVE_INFINITY);
    }
  }

  /** Whether the log holds, as its first ones, the events that ended so. */
  holds({ events, sum }: LogEnd): boolean {
    if (events === 0 || events > this.end.events) return events === 0;
    let last: LogEnd = { events: 0, sum: '' };
    for (const { end } of this.#bodies(events - 1, events)) last = end;
    return last.sum === sum;
  }

  /**
   * The events numbered `from` (inclusive) to `to` (exclusive), each when it is asked for: their lines are checked against their
   * sums. With `mentions`, those alone in whose lines this stands. Throws `run.corrupt` with the line that is not the one that was
   * indexed.
   */
  *raw(from: number, to = this.end.events, mentions = ''): Generator<RawEvent> {
    const wanted = Buffer.from(mentions);
    for (const { body, number } of this.#bodies(from, to)) {
      if (!body.includes(wanted)) continue;
      try {
        yield { number, value: JSON.parse(body.toString('utf8')) };
      } catch (error) {
        throw notAnEvent(this.file, number, error);
      }
    }
  }

  /**
   * Of these events those in whose lines a text stands, whatever the case of a to z, as `raw` gives them; null where a part of
   * the log has been read. Lines in which it does not stand are not checked.
   */
  *mentioning(text: string, from: number, to = this.end.events): Generator<RawEvent | null> {
    const { markBytes, end } = this.#index.data;
    const wanted = folded(Buffer.from(JSON.stringify(text).slice(1, -1)));
    const begin = markBytes[Math.floor(from / marked)] ?? end.bytes;
    let checked: Iterator<RawEvent, void> = [].values();
    let next = Number.POSITIVE_INFINITY;
    let read = 0;
    for (const line of lineBytesIn(this.#log, begin, markBytes[Math.ceil(to / marked)] ?? end.bytes)) {
      if (folded(line).includes(wanted)) {
        const number = Number(/^\{"seq":(\d+),/.exec(line.toString('latin1', 0, 32))?.[1]);
        if (number < from || number >= to) continue;
        // Events that are near go on from those before: each line is checked once.
        if (number < next || number >= next + marked) {
          checked = this.raw(number, to);
          next = number;
        }
        for (; next < number; next++) checked.next();
        const { value } = checked.next();
        next++;
        if (value) yield value;
      }
      read += line.length;
      if (read < partBytes) continue;
      read = 0;
      yield null;
    }
  }

  /** Their lines, checked against their sums. Throws as `raw`. */
  *lines(from: number, to = this.end.events): Generator<LoggedLine> {
    for (const { body, number, at } of this.#bodies(from, to))
      yield { number, at, body: body.toString('utf8') };
  }

  /** Checks every line against its sum. Throws as `raw`. */
  check(): void {
    for (const _ of this.#bodies(0, this.end.events));
  }

  /** As `raw`, validated. */
  *events(from: number, to?: number): Generator<RunEvent> {
    for (const raw of this.raw(from, to)) yield this.parse(raw);
  }

  /** An event as its schema has it. */
  parse({ number, value }: RawEvent): RunEvent {
    try {
      return parseEvent(value);
    } catch (error) {
      throw notAnEvent(this.file, number, error);
    }
  }

  close(): void {
    this.#log.close();
  }

  /** Events as bytes, each until the next is asked for. */
  *#bodies(from: number, to: number): Generator<{ body: Buffer; number: number; at: string; end: LogEnd }> {
    const { markBytes, markSums, end } = this.#index.data;
    if (from >= Math.min(to, end.events)) return;
    const mark = Math.floor(from / marked);
    const bound = markBytes[Math.ceil(to / marked)] ?? end.bytes;
    let at: LogEnd = { events: mark * marked, sum: markSums[mark]! };
    for (const line of lineBytesIn(this.#log, markBytes[mark]!, bound)) {
      const number = at.events;
      if (number === to) return;
      const checked = this.#check(line, at);
      at = checked.end;
      if (number >= from) yield { ...checked, number };
    }
    if (at.events < Math.min(to, end.events)) throw notAnEvent(this.file, at.events, 'it is not there');
  }

  #check(line: Buffer, at: LogEnd): ReturnType<typeof checkBytes> {
    try {
      return checkBytes(line, at);
    } catch (error) {
      throw notAnEvent(this.file, at.events, error);
    }
  }

  /** Whether the last events that an index knows are where it has them: their sums hold all that was before. */
  #holdsEndOf({ end: { events, sum, bytes }, markBytes, markSums }: IndexData): boolean {
    if (bytes > this.#log.size()) return false;
    const mark = markBytes.length - 1;
    let at: LogEnd & { bytes: number } = {
      events: mark * marked,
      sum: markSums[mark]!,
      bytes: markBytes[mark]!,
    };
    try {
      for (const line of lineBytesIn(this.#log, at.bytes, bytes)) {
        at = { ...checkBytes(line, at).end, bytes: at.bytes + line.length + 1 };
      }
    } catch {
      return false;
    }
    return at.events === events && at.sum === sum && at.bytes === bytes;
  }

  #write(): void {
    const { bytes } = this.end;
    const gained = bytes - this.#written;
    if (gained === 0 || (this.#written > 0 && gained < Math.max(worthWriting, this.#written / 10))) return;
    // Where it cannot be written now it cannot be later: it is tried again when the log has grown.
    writeIndex(indexPath(this.folder), this.#index.data);
    this.#written = bytes;
  }
}
