// How a frozen matrix comes to be, of numbers that come in pieces: what turns rows into panels is machine code, as what reads them.
import { OptimaError } from '../domain/errors.ts';
import {
  bytesPerNumber,
  type FrozenFormat,
  type FrozenMatrix,
  frozenBytes,
  paddedToPanels,
  panelRows,
} from './frozen-matrix.ts';
import { adviseHugePages } from './wasm/huge-pages.ts';
import { type Turning, turningCode } from './x86/turning.ts';

function allocateShared(shape: readonly number[], bytes: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(bytes);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const gib = (bytes / 2 ** 30).toFixed(1);
    throw new OptimaError(
      'model.failed',
      `There is no memory for a frozen matrix [${shape.join(', ')}] of ${gib} GiB.`,
      { cause, hint: 'Take a smaller model, or fewer models and programs at once.' },
    );
  }
}

/** A matrix whose numbers come in pieces, row by row. What a narrow format does not hold of them is cut off. */
export class GrowingMatrix {
  readonly matrix: FrozenMatrix;
  readonly #turning: Turning;
  /** The rows of the next panel where no piece has all of them, and how many numbers of them are there. */
  readonly #rows: Float32Array;
  #filled = 0;
  #panel = 0;

  /** Throws `model.failed` when there is no memory for it. */
  constructor(shape: readonly [number, number], format: FrozenFormat) {
    const memory = allocateShared(shape, frozenBytes(shape, format));
    const numbers = format === 'float32' ? new Float32Array(memory) : new Uint16Array(memory);
    this.#turning = turningCode();
    this.matrix = { shape, format, numbers, address: this.#turning.addressOf(numbers) };
    adviseHugePages(numbers, memory.byteLength);
    this.#rows = new Float32Array(panelRows * shape[1]);
  }

  /** Adds a piece, behind those before; the array may be used again. */
  add(piece: Float32Array): void {
    const size = this.#rows.length;
    for (let at = 0; at < piece.length; ) {
      if (this.#filled === 0 && piece.length - at >= size) {
        const panels = Math.floor((piece.length - at) / size);
        this.#turn(piece.subarray(at, at + panels * size), panels);
        at += panels * size;
        continue;
      }
      const taken = Math.min(piece.length - at, size - this.#filled);
      this.#rows.set(piece.subarray(at, at + taken), this.#filled);
      [at, this.#filled] = [at + taken, this.#filled + taken];
      if (this.#filled === size) this.#turn(this.#rows, 1);
    }
  }

  /** As for what grows on the heap. There is nothing to free: the memory goes when nobody refers to it. */
  dispose(): void {}

  /** The matrix, once all its numbers are there. */
  finish(): FrozenMatrix {
    if (this.#filled > 0) {
      this.#rows.fill(0, this.#filled);
      this.#turn(this.#rows, 1);
    }
    return this.matrix;
  }

  /** The rows of so many panels. */
  #turn(rows: Float32Array, panels: number): void {
    const { numbers, shape, format, address } = this.matrix;
    const [, inner] = shape;
    const size = panelRows * paddedToPanels(inner);
    const bytes = bytesPerNumber(format);
    const [from, to] = [this.#turning.addressOf(rows), address + bytes * size * this.#panel];
    const whole = inner - (inner % 8);
    this.#turning.turn[format](from, to, 4 * inner, whole, panels, 0, bytes * size);
    for (let panel = 0; whole < inner && panel < panels; panel++) {
      const own = rows.subarray(panel * panelRows * inner, (panel + 1) * panelRows * inner);
      const bits = format === 'float32' ? own : new Uint16Array(own.buffer, own.byteOffset, 2 * own.length);
      const out = numbers.subarray((this.#panel + panel) * size, (this.#panel + panel + 1) * size);
      for (let k = whole; k < inner; k++) {
        for (let row = 0; row < panelRows; row++) {
          out[k * panelRows + row] =
            bits[format === 'float32' ? row * inner + k : 2 * (row * inner + k) + 1]!;
        }
      }
    }
    this.#panel += panels;
    this.#filled = 0;
  }
}
