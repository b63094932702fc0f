// The safetensors file format: reads F32, F16 and BF16 tensors as float32, writes F32. Used by checkpoint.ts.
//
// u64 header length | JSON header { name: { dtype, shape, data_offsets } } | tensor bytes, little-endian
import { type FileHandle, open } from 'node:fs/promises';
import { z } from 'zod';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { widen } from '../../tensor/index.ts';
import { howToConvert, requirePlainFile } from '../files.ts';
import type { NamedArray } from './weights.ts';

const headerSchema = z.record(
  z.string(),
  z.object({
    dtype: z.string(),
    shape: z.array(z.int().nonnegative()),
    data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
  }),
);

/** The reference implementation's own limit; a longer header means that the file is something else. */
const maxHeaderBytes = 100_000_000;

/** Bytes of a tensor that are read at a time: a tensor as long as a third of a model is never in memory twice. */
const pieceBytes = 2 ** 23;

/** How many bytes a number of each readable dtype has, and how `count` of them become float32: in `out`, or where they are. */
const decoders: Readonly<
  Record<string, { bytes: number; decode(raw: ArrayBuffer, count: number, out: ArrayBuffer): Float32Array }>
> = {
  F32: { bytes: 4, decode: (raw, count) => new Float32Array(raw, 0, count) },
  F16: {
    bytes: 2,
    decode: (raw, count, out) => {
      const [bits, values, table] = [new Uint16Array(raw), new Float32Array(out, 0, count), float16Table()];
      for (let i = 0; i < count; i++) values[i] = table[bits[i]!]!;
      return values;
    },
  },
  BF16: {
    bytes: 2,
    decode: (raw, count, out) => {
      const values = new Float32Array(out, 0, count);
      widen(new Uint16Array(raw, 0, count), values);
      return values;
    },
  },
};

/** Where in the file a tensor lies, checked against its shape and the file's size. */
interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** A piece that is being read, or was. */
interface Ahead {
  /** Where it begins, and where its tensor ends. */
  readonly at: number;
  readonly end: number;
  readonly raw: Uint8Array<ArrayBuffer>;
  readonly filled: Promise<void>;
}

/** An open file, of which one tensor is read at a time. Its owner closes it. */
export class SafetensorsFile {
  /** The shapes of its tensors, by name. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly #handle: FileHandle;
  readonly #entries: ReadonlyMap<string, Entry>;
  /** For the bytes of a piece and of the one that is read ahead, and for numbers where these are longer. */
  readonly #raws: readonly [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>];
  #decoded = new ArrayBuffer(0);
  #ahead: Ahead | null = null;

  private constructor(handle: FileHandle, entries: ReadonlyMap<string, Entry>) {
    this.shapes = new Map([...entries].map(([name, { shape }]) => [name, shape]));
    this.#handle = handle;
    this.#entries = entries;
    const longest = [...entries.values()].reduce((most, { begin, end }) => Math.max(most, end - begin), 0);
    // Whole numbers of any dtype.
    const room = () => new Uint8Array(4 * Math.ceil(Math.min(pieceBytes, longest) / 4));
    this.#raws = [room(), room()];
  }

  /**
   * Opens a file and reads where its tensors are. Throws `checkpoint.missing` when there is no such file and
   * `checkpoint.invalid`, naming file and tensor, when it is truncated, corrupt or holds another dtype.
   */
  static async open(path: string): Promise<SafetensorsFile> {
    await requirePlainFile(path);
    let handle: FileHandle;
    try {
      handle = await open(path, 'r');
    } catch (error) {
      throw new OptimaError('io.read', `Cannot read ${path}: ${messageOf(error)}.`, { cause: error });
    }
    try {
      return new SafetensorsFile(handle, await readEntries(handle, path));
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** How a tensor is stored: F32, F16 or BF16. */
  dtypeOf(name: string): string {
    return this.#entries.get(name)!.dtype;
  }

  /**
   * Hands over the numbers of a tensor, in order and in pieces, as float32; `take` keeps none of the arrays. Meanwhile the next
   * piece is read, behind the last one that of the tensor `next`.
   */
  async read(name: string, take: (piece: Float32Array) => void, next?: string): Promise<void> {
    const { dtype, begin, end } = this.#entries.get(name)!;
    const { bytes, decode } = decoders[dtype]!;
    if (bytes < 4 && this.#decoded.byteLength === 0) {
      this.#decoded = new ArrayBuffer((4 / bytes) * this.#raws[0].length);
    }
    const following = next === undefined ? undefined : this.#entries.get(next);
    for (let at = begin; at < end; at += pieceBytes) {
      const length = Math.min(pieceBytes, end - at);
      if (this.#ahead?.at !== at || this.#ahead.end !== end) {
        await this.#ahead?.filled.catch(() => {});
        this.#readAhead(at, end);
      }
      const { raw, filled } = this.#ahead!;
      await filled;
      if (at + length < end) this.#readAhead(at + length, end);
      else if (following !== undefined) this.#readAhead(following.begin, following.end);
      take(decode(raw.buffer, length / bytes, this.#decoded));
    }
  }

  async close(): Promise<void> {
    await this.#ahead?.filled.catch(() => {});
    await this.#handle.close();
  }

  /** Begins to read a piece of what ends at `end`, where no other is. */
  #readAhead(at: number, end: number): void {
    const [one, other] = this.#raws;
    const raw = this.#ahead?.raw === one ? other : one;
    const filled = fillBytes(this.#handle, at, raw.subarray(0, Math.min(pieceBytes, end - at)));
    filled.catch(() => {}); // whoever waits for it is told
    this.#ahead = { at, end, raw, filled };
  }
}

const renamed = (name: string): string => `Name it ${name}. ${howToConvert(name)}`;

/** Other files that come under the name of a safetensors file, what they begin with, and what to do. A header has no such length. */
const strangers = [
  { marks: ['GGUF'], what: 'a GGUF file', hint: renamed('model.gguf') },
  { marks: ['PK\x03\x04'], what: "PyTorch's own format", hint: renamed('pytorch_model.bin') },
  {
    marks: ['version '],
    what: 'a pointer of Git LFS and not the file',
    hint: 'Fetch the file itself: git lfs pull.',
  },
  {
    marks: ['<!', '<h', '<?'],
    what: 'a web page',
    hint: 'The download gave a page in place of the file: download it again, as its raw bytes.',
  },
];

async function readEntries(handle: FileHandle, path: string): Promise<Map<string, Entry>> {
  const refuse = (
    problem: string,
    hint = 'The file is damaged or was not completely written; copy or download it again.',
  ): never => {
    throw new OptimaError('checkpoint.invalid', `${path}: ${problem}.`, { hint });
  };
  const { size } = await handle.stat();
  if (size < 8) refuse(`truncated: ${size} bytes are not even a header`);
  const lengthBytes = await readBytes(handle, 0, 8);
  const start = new TextDecoder('latin1').decode(lengthBytes);
  const stranger = strangers.find(({ marks }) => marks.some((mark) => start.startsWith(mark)));
  if (stranger !== undefined) refuse(`${stranger.what}, whatever its name`, stranger.hint);
  const headerBytes = Number(new DataView(lengthBytes.buffer).getBigUint64(0, true));
  if (headerBytes > maxHeaderBytes) refuse('not a safetensors file: its header length is implausible');
  const dataStart = 8 + headerBytes;
  if (dataStart > size) refuse('truncated inside its header');
  const header = parseHeader(await readBytes(handle, 8, headerBytes), refuse);
  requireApart(header, refuse);
  const entries = new Map<string, Entry>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    const [begin, end] = data_offsets;
    if (!Object.hasOwn(decoders, dtype)) {
      refuse(
        `tensor ${name} has dtype ${dtype}, not F32, F16 or BF16`,
        'Give a checkpoint with weights in float32, float16 or bfloat16.',
      );
    }
    const expectedBytes = decoders[dtype]!.bytes * sizeOf(shape);
    if (end - begin !== expectedBytes) {
      refuse(`tensor ${name} of shape [${shape}] should take ${expectedBytes} bytes, not ${end - begin}`);
    }
    if (dataStart + end > size) {
      refuse(`truncated: tensor ${name} ends at byte ${dataStart + end}, the file at ${size}`);
    }
    entries.set(name, { dtype, shape, begin: dataStart + begin, end: dataStart + end });
  }
  return entries;
}

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);

/** Reads every tensor of a file as float32. Throws as `SafetensorsFile.open` does. */
export async function readSafetensors(path: string): Promise<Map<string, NamedArray>> {
  const file = await SafetensorsFile.open(path);
  try {
    const tensors = new Map<string, NamedArray>();
    for (const [name, shape] of file.shapes) {
      const values = new Float32Array(sizeOf(shape));
      let at = 0;
      await file.read(name, (piece) => {
        values.set(piece, at);
        at += piece.length;
      });
      tensors.set(name, { shape, values });
    }
    return tensors;
  } finally {
    await file.close();
  }
}

function parseHeader(bytes: Uint8Array, refuse: (problem: string) => never): z.output<typeof headerSchema> {
  let tensors: Record<string, unknown>;
  try {
    tensors = { ...JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) };
  } catch (error) {
    return refuse(`its header is not JSON (${messageOf(error)})`);
  }
  delete tensors.__metadata__;
  const result = headerSchema.safeParse(tensors);
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  return refuse(`its header is malformed at ${issue.path.join('.') || 'the top'}: ${issue.message}`);
}

/** Two tensors in one place would make a small file fill the memory. */
function requireApart(header: z.output<typeof headerSchema>, refuse: (problem: string) => never): void {
  const ranges = Object.entries(header).map(
    ([
      name,
      {
        data_offsets: [begin, end],
      },
    ]) => ({ name, begin, end }),
  );
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  for (const [index, { name, begin }] of ranges.entries()) {
    const before = ranges[index - 1];
    if (before !== undefined && begin < before.end) {
      refuse(`the tensors ${before.name} and ${name} lie in the same bytes`);
    }
  }
}

async function readBytes(
  handle: FileHandle,
  position: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  await fillBytes(handle, position, bytes);
  return bytes;
}

async function fillBytes(handle: FileHandle, position: number, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, position + done);
    if (bytesRead === 0) throw new OptimaError('io.read', 'A checkpoint file shrank while it was read.');
    done += bytesRead;
  }
}

let halves: Float32Array | undefined;

/** The numbers that the 65,536 values of IEEE 754 binary16 stand for, by their bits. */
function float16Table(): Float32Array {
  halves ??= Float32Array.from({ length: 2 ** 16 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const [exponent, fraction] = [(bits >> 10) & 0x1f, bits & 0x3ff];
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
  return halves;
}

/** Writes tensors as F32, in the map's order, and flushes them to the disk. */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, NamedArray>,
): Promise<void> {
  // Transformers refuses files without this entry.
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const [name, { shape }] of tensors) {
    const bytes = 4 * sizeOf(shape);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Padded with spaces, so that the data starts on a multiple of 8 bytes.
  const head = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(json, 8);

  const handle = await open(path, 'w');
  try {
    await handle.writeFile(head);
    for (const { values } of tensors.values()) {
      await writeBytes(handle, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes behind what is there, a piece at a time: `writeFile` would take pieces of half a megabyte, the system no more than 2 GiB. */
async function writeBytes(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(2 ** 26, bytes.length - done));
    done += bytesWritten;
  }
}
