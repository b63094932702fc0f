// Files of lines, read through one buffer: they may be longer than the memory.
import fs from 'node:fs';

const newline = 0x0a;
/** Bytes that are read at once. */
const bufferBytes = 1 << 20;

/** The whole lines in a range of an open file's bytes, without their ends, each as bytes that are there until the next is asked for. */
export function* lineBytesIn(descriptor: number, from: number, to: number): Generator<Buffer> {
  let buffer = Buffer.allocUnsafe(Math.max(1, Math.min(bufferBytes, to - from)));
  let held = 0;
  for (let offset = from; offset < to; ) {
    if (held === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
    const room = Math.min(bufferBytes, buffer.length - held, to - offset);
    const count = fs.readSync(descriptor, buffer, held, room, offset);
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

/** The whole lines in a range of an open file's bytes as texts, without their ends, each with its number of bytes. */
export function* linesIn(
  descriptor: number,
  from: number,
  to: number,
): Generator<[line: string, bytes: number]> {
  for (const line of lineBytesIn(descriptor, from, to)) yield [line.toString('utf8'), line.length + 1];
}
