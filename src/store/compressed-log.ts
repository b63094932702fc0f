// A log that is over, as a gzip file: `events.jsonl.gz`. It has many members, each of which holds as many bytes of the text and says
// in its header how long it is, so that any byte is found without what is before it. Whatever reads gzip reads the whole.
import fs from 'node:fs';
import zlib from 'node:zlib';
import { messageOf, OptimaError } from '../domain/errors.ts';
import { readingFrom } from './files.ts';
import type { LogFile } from './lines.ts';

/** Bytes of the text in each member but the last: what is unpacked, at least, to read one of them. */
const memberBytes = 1 << 18;
/** Members whose texts are kept. */
const keptTexts = 4;

/**
 * How a member begins (RFC 1952): deflated, with an extra field, of no time and no system; the field, `OA`, has two whole numbers of
 * 32 bits: the bytes of the member and those of its text.
 */
const mark = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 2, 0xff, 12, 0, 0x4f, 0x41, 8, 0]);
const headerBytes = mark.length + 8;
/** Of a header without an extra field, which is what zlib writes. */
const plainHeaderBytes = 10;
/** Checksum and length behind the text. */
const trailerBytes = 8;

/** A part of a log as a member. */
function memberOf(text: Uint8Array): Buffer {
  const packed = zlib.gzipSync(text, { level: 9 }).subarray(plainHeaderBytes);
  const sizes = Buffer.alloc(headerBytes - mark.length);
  sizes.writeUInt32LE(headerBytes + packed.length, 0);
  sizes.writeUInt32LE(text.length, 4);
  return Buffer.concat([mark, sizes, packed]);
}

/** A log as members, one after the other; `onProgress` hears how many bytes of it have been read. */
export function* membersOf(log: LogFile, onProgress: (bytes: number) => void): Generator<Buffer> {
  const size = log.size();
  const text = Buffer.allocUnsafe(memberBytes);
  for (let at = 0; at < size; ) {
    let held = 0;
    while (held < memberBytes && at < size) {
      const count = log.read(text, held, Math.min(memberBytes - held, size - at), at);
      held += count;
      at += count;
    }
    yield memberOf(text.subarray(0, held));
    onProgress(at);
  }
}

/** A compressed log that is open. Positions are those of the text. */
export class CompressedLog implements LogFile {
  readonly path: string;
  readonly descriptor: number;
  readonly isCompressed = true;
  /** Byte of the file at which each member begins, and the file's end. */
  readonly #begins: number[] = [0];
  /** Bytes of the text in each member but the last. */
  #each = 0;
  #size = 0;
  /** Texts of members, the one that was read last at the end. */
  readonly #texts = new Map<number, Buffer>();

  /** Throws `run.corrupt` for a file that does not consist of members. */
  constructor(path: string, descriptor: number) {
    this.path = path;
    this.descriptor = descriptor;
    const { size } = fs.fstatSync(descriptor);
    const header = Buffer.alloc(headerBytes);
    let last = 0;
    for (let at = 0; at < size; ) {
      const count = readingFrom(path, () => fs.readSync(descriptor, header, 0, headerBytes, at));
      const [bytes, text] = [header.readUInt32LE(mark.length), header.readUInt32LE(mark.length + 4)];
      const isMember =
        count === headerBytes &&
        header.subarray(0, mark.length).equals(mark) &&
        bytes > headerBytes + trailerBytes &&
        at + bytes <= size &&
        text > 0 &&
        text <= memberBytes &&
        (at === 0 || last === this.#each);
      if (!isMember) throw this.#damaged(at, 'no part of a log begins there');
      if (at === 0) this.#each = text;
      last = text;
      this.#size += text;
      at += bytes;
      this.#begins.push(at);
    }
  }

  size(): number {
    return this.#size;
  }

  read(into: Buffer, at: number, length: number, position: number): number {
    if (position >= this.#size) return 0;
    const member = Math.floor(position / this.#each);
    const from = position - member * this.#each;
    return this.#textOf(member).copy(into, at, from, from + length);
  }

  close(): void {
    fs.closeSync(this.descriptor);
  }

  #textOf(member: number): Buffer {
    const text = this.#texts.get(member) ?? this.#unpack(member);
    this.#texts.delete(member);
    this.#texts.set(member, text);
    if (this.#texts.size > keptTexts) this.#texts.delete(this.#texts.keys().next().value!);
    return text;
  }

  #unpack(member: number): Buffer {
    const [from, to] = [this.#begins[member]!, this.#begins[member + 1]!];
    const length = Math.min(this.#each, this.#size - member * this.#each);
    const bytes = Buffer.allocUnsafe(to - from);
    readingFrom(this.path, () => fs.readSync(this.descriptor, bytes, 0, bytes.length, from));
    let text: Buffer;
    try {
      text = zlib.gunzipSync(bytes, { maxOutputLength: length });
    } catch (error) {
      throw this.#damaged(from, messageOf(error));
    }
    if (text.length !== length) throw this.#damaged(from, `it holds ${text.length} bytes, not ${length}`);
    return text;
  }

  #damaged(from: number, problem: string): OptimaError {
    return new OptimaError(
      'run.corrupt',
      `${this.path}: damaged in the part from byte ${from} on: ${problem}.`,
      {
        hint: `The file was changed or damaged: restore it. One that another program compressed is unpacked first: gunzip ${this.path}`,
      },
    );
  }
}
