// Logs that are open, and their lines, read through one buffer: they may be longer than the memory.

const newline = 0x0a;
/** Bytes that are read at once. */
const bufferBytes = 1 << 20;

/** A log that is open. Positions and sizes are those of its text. */
export interface LogFile {
  readonly path: string;
  readonly descriptor: number;
  /** Whether nothing can be added to it. */
  readonly isCompressed: boolean;
  /** Bytes that it has now. */
  size(): number;
  /** Copies bytes from `position` on, at most `length`, and gives how many; 0: there are none. Throws `run.corrupt` where they are damaged. */
  read(into: Buffer, at: number, length: number, position: number): number;
  close(): void;
}

/** What lines are read from. */
type Source = Pick<LogFile, 'read'>;

/** The whole lines in a range of a log's bytes, without their ends, each as bytes that are there until the next is asked for. */
export function* lineBytesIn(log: Source, from: number, to: number): Generator<Buffer> {
  let buffer = Buffer.allocUnsafe(Math.max(1, Math.min(bufferBytes, to - from)));
  let held = 0;
  for (let offset = from; offset < to; ) {
    if (held === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
    const room = Math.min(bufferBytes, buffer.length - held, to - offset);
    const count = log.read(buffer, held, room, offset);
    if (count === 0) break;
    offset += count;
    held += count;
    const bytes = buffer.subarray(0, held);
    let start = 0;
    for (let end = bytes.indexOf(newline); end >= 0; end = bytes.indexOf(newline, start)) {
      yield bytes.subarray(start, end);
      start = end + 1;
    }
    buffer.copyWithin(0, start, held);
    held -= start;
  }
}

/** The whole lines in a range of a log's bytes as texts, without their ends, each with its number of bytes. */
export function* linesIn(log: Source, from: number, to: number): Generator<[line: string, bytes: number]> {
  for (const line of lineBytesIn(log, from, to)) yield [line.toString('utf8'), line.length + 1];
}
