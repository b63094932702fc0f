// The safetensors file format: reads F32, F16 and BF16 tensors as float32, writes F32. Used by checkpoint.ts.
//
// u64 header length | JSON header { name: { dtype, shape, data_offsets } } | tensor bytes, little-endian
import { type FileHandle, open } from 'node:fs/promises';
import { z } from 'zod';
import { messageOf, OptimaError } from '../../domain/errors.ts';
import { requirePlainFile } from '../files.ts';
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
/** One system call reads at most 2³¹ − 1 bytes. */
const maxReadBytes = 2 ** 30;

/** How each readable dtype becomes float32: the array to read the bytes into, and its conversion. */
const decoders: Readonly<
  Record<string, { bytes: number; decode(raw: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> }>
> = {
  F32: { bytes: 4, decode: (raw) => new Float32Array(raw.buffer) },
  F16: { bytes: 2, decode: (raw) => Float32Array.from(new Uint16Array(raw.buffer), float16ToNumber) },
  BF16: {
    bytes: 2,
    // A bfloat16 is the upper half of a float32.
    decode: (raw) =>
      new Float32Array(Uint32Array.from(new Uint16Array(raw.buffer), (bits) => bits << 16).buffer),
  },
};

/**
 * Reads every tensor of a file as float32. Throws `checkpoint.missing` when there is no such file and
 * `checkpoint.invalid`, naming file and tensor, when it is truncated, corrupt or of another dtype.
 */
export async function readSafetensors(path: string): Promise<Map<string, NamedArray>> {
  const refuse = (problem: string): never => {
    throw new OptimaError('checkpoint.invalid', `${path}: ${problem}.`, {
      hint: 'The file is damaged or was not completely written; copy or download it again.',
    });
  };
  await requirePlainFile(path);
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    throw new OptimaError('io.read', `Cannot read ${path}: ${messageOf(error)}.`, { cause: error });
  }
  try {
    const { size } = await handle.stat();
    if (size < 8) refuse(`truncated: ${size} bytes are not even a header`);
    const lengthBytes = await readBytes(handle, 0, 8);
    const headerBytes = Number(new DataView(lengthBytes.buffer).getBigUint64(0, true));
    if (headerBytes > maxHeaderBytes) refuse('not a safetensors file: its header length is implausible');
    const dataStart = 8 + headerBytes;
    if (dataStart > size) refuse('truncated inside its header');
    const header = parseHeader(await readBytes(handle, 8, headerBytes), refuse);

    requireApart(header, refuse);
    const tensors = new Map<string, NamedArray>();
    for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
      const [begin, end] = data_offsets;
      const decoder = decoders[dtype];
      if (decoder === undefined) return refuse(`tensor ${name} has dtype ${dtype}, not F32, F16 or BF16`);
      const expectedBytes = decoder.bytes * shape.reduce((product, n) => product * n, 1);
      if (end - begin !== expectedBytes) {
        refuse(`tensor ${name} of shape [${shape}] should take ${expectedBytes} bytes, not ${end - begin}`);
      }
      if (dataStart + end > size) {
        refuse(`truncated: tensor ${name} ends at byte ${dataStart + end}, the file at ${size}`);
      }
      tensors.set(name, {
        shape,
        values: decoder.decode(await readBytes(handle, dataStart + begin, end - begin)),
      });
    }
    return tensors;
  } finally {
    await handle.close();
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
  let done = 0;
  while (done < length) {
    const wanted = Math.min(length - done, maxReadBytes);
    const { bytesRead } = await handle.read(bytes, done, wanted, position + done);
    if (bytesRead === 0) throw new OptimaError('io.read', 'A checkpoint file shrank while it was read.');
    done += bytesRead;
  }
  return bytes;
}

/** IEEE 754 binary16 bits as a number. */
function float16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Writes tensors as F32, in the map's order, and flushes them to the disk. */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, NamedArray>,
): Promise<void> {
  // Transformers refuses files without this entry.
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let offset = 0;
  for (const [name, { shape, values }] of tensors) {
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + values.byteLength] };
    offset += values.byteLength;
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
      await handle.writeFile(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}
