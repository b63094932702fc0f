// A run's figures as TensorBoard reads them: records of `Event` messages in protocol buffers, each framed by its length and
// checksums (TFRecord). What is needed of these formats is written here; nothing of TensorFlow is.
import type { LoggedEvent } from '../store/read-events.ts';

/** A figure at a step, and when it was known, in seconds since 1970. */
export interface Scalar {
  readonly tag: string;
  readonly step: number;
  readonly value: number;
  readonly wallTime: number;
}

// CRC-32C (Castagnoli), reflected.
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ 0x82f63b78 : rest >>> 1;
  return rest;
});

/** The CRC-32C of some bytes. */
export function crc32c(bytes: Uint8Array): number {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = table[(sum ^ byte) & 0xff]! ^ (sum >>> 8);
  return ~sum >>> 0;
}

/** As TFRecord stores it: rotated and moved, so that a checksum of checksums is no fixed point. */
const masked = (bytes: Uint8Array): number => {
  const sum = crc32c(bytes);
  return (((sum >>> 15) | (sum << 17)) + 0xa282ead8) >>> 0;
};

/** One record: length, its checksum, the data, its checksum; little-endian. */
export function tfRecord(data: Uint8Array): Uint8Array {
  const record = new Uint8Array(data.length + 16);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, masked(record.subarray(0, 8)), true);
  record.set(data, 12);
  view.setUint32(12 + data.length, masked(data), true);
  return record;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest % 128) | 128);
  }
}

const [wireVarint, wireDouble, wireBytes, wireFloat] = [0, 1, 2, 5];
const field = (number: number, wire: number, bytes: Iterable<number>): number[] => [
  (number << 3) | wire,
  ...bytes,
];
const bytesField = (number: number, bytes: ArrayLike<number> & Iterable<number>): number[] =>
  field(number, wireBytes, [...varint(bytes.length), ...bytes]);
const text = new TextEncoder();

const double = (value: number) => new Uint8Array(Float64Array.of(value).buffer);
const float = (value: number) => new Uint8Array(Float32Array.of(value).buffer);

/** `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }` */
function scalarEvent({ tag, step, value, wallTime }: Scalar): Uint8Array {
  const summary = bytesField(1, [...bytesField(1, text.encode(tag)), ...field(2, wireFloat, float(value))]);
  return Uint8Array.from([
    ...field(1, wireDouble, double(wallTime)),
    ...field(2, wireVarint, varint(step)),
    ...bytesField(5, summary),
  ]);
}

/** `Event { wall_time = 1, file_version = 3 }`, which comes first in a file. */
const versionEvent = (wallTime: number): Uint8Array =>
  Uint8Array.from([
    ...field(1, wireDouble, double(wallTime)),
    ...bytesField(3, text.encode('brain.Event:2')),
  ]);

/** The records of an event file of these scalars, which begins at `wallTime`. */
export async function* eventFile(
  scalars: AsyncIterable<Scalar>,
  wallTime: number,
): AsyncGenerator<Uint8Array> {
  yield tfRecord(versionEvent(wallTime));
  for await (const scalar of scalars) yield tfRecord(scalarEvent(scalar));
}

/** When an event was logged, in seconds since 1970. */
export const secondsOf = ({ at }: Pick<LoggedEvent, 'at'>): number => Date.parse(at) / 1000;

/**
 * The figures of a log, event by event. A training step counts through the run, from 0; what an iteration's phase hands on has
 * the number of the iteration, the base 0, and what is measured behind them the number of the last iteration and one more.
 */
export async function* scalarsIn(events: AsyncIterable<LoggedEvent>): AsyncGenerator<Scalar> {
  let steps = 0;
  let last = 0;
  for await (const event of events) {
    const wallTime = secondsOf(event);
    if (event.type === 'step.trained') {
      const { role, learningRate, loss, gradNorm, tokens, figures } = event;
      const under = role === undefined ? 'step' : `step/${role}`;
      const step = steps++;
      for (const [name, value] of Object.entries({ loss, gradNorm, learningRate, tokens, ...figures }))
        yield { tag: `${under}/${name}`, step, value, wallTime };
    } else if (event.type === 'phase.completed') {
      const iteration = /-(\d+)\//.exec(event.phase)?.[1];
      if (iteration !== undefined) last = Number(iteration) + 1;
      const step = iteration === undefined ? (event.phase === 'base' ? 0 : last) : Number(iteration);
      for (const [tag, value] of numbersIn(event.output, groupOf(event.phase))) {
        yield { tag, step, value, wallTime };
      }
    }
  }
}

/** Under what a phase's figures stand: the team is measured on test tasks before and after, and on validation tasks between. */
function groupOf(phase: string): string {
  if (phase === 'base' || phase === 'trained') return 'test';
  const kind = phase.replace(/^\w+-\d+\//, '');
  return kind === 'evaluate' ? 'validation' : kind;
}

/** The numbers of an object by their paths; what is null, or no number, is left out. */
function* numbersIn(value: unknown, path: string): Generator<[path: string, value: number]> {
  if (typeof value === 'number') yield [path, value];
  else if (typeof value === 'object' && value !== null)
    for (const [name, part] of Object.entries(value))
      yield* numbersIn(part, name === 'metrics' ? path : `${path}/${name}`);
}
