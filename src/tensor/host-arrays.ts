// Numbers from tensors to arrays and back: straight through the heap on wasm, where TF.js' own way makes an array for
// each. These are large, and enough of them keep the garbage collector busy beside the training.
import tf from './tfjs.cjs';
import { currentHeap, currentMachineCode } from './wasm/install.ts';
import { turningCode } from './x86/turning.ts';

/** Copies a float32 tensor's numbers to `out`, of its size. */
export function readInto(tensor: tf.Tensor, out: Float32Array): void {
  const heap = currentHeap();
  out.set(heap === null ? tensor.dataSync<'float32'>() : heap.floats(heap.addressOf(tensor), tensor.size));
}

/** The numbers of a tensor that is computed. Not out of `tidy`: what that gives back it searches for tensors, number by number. */
export function computeNumbers(compute: () => tf.Tensor): Float32Array {
  const tensor = tf.tidy(compute);
  const numbers = tensor.dataSync<'float32'>();
  tensor.dispose();
  return numbers;
}

/** Gives a variable other numbers, as many as it has. */
export function overwrite(variable: tf.Variable, values: Float32Array): void {
  const heap = currentHeap();
  tf.tidy(() => {
    if (heap === null) {
      // A copy: a tensor may keep the array that it is made of.
      variable.assign(tf.tensor(values.slice(), variable.shape));
      return;
    }
    const { dataId, shape, dtype } = heap.allocate(variable.shape);
    const tensor = tf.engine().makeTensorFromTensorInfo({ dataId, shape, dtype });
    heap.floats(heap.addressOf(tensor), tensor.size).set(values);
    variable.assign(tensor);
  });
}

/** A variable whose numbers come in pieces. */
export interface GrowingVariable {
  /** Adds a piece, behind those before; the array may be used again. */
  add(piece: Float32Array): void;
  /** The variable, once all its numbers are there. */
  finish(): tf.Variable;
  /** Gives up. */
  dispose(): void;
}

/**
 * Begins a variable of a shape. On wasm its numbers go straight to the heap, so that there is no second copy of them. Throws
 * `model.failed` when the heap is full.
 */
export function growVariable(shape: readonly number[]): GrowingVariable {
  const heap = currentHeap();
  let at = 0;
  if (heap === null) {
    const values = new Float32Array(shape.reduce((product, n) => product * n, 1));
    return {
      add(piece) {
        values.set(piece, at);
        at += piece.length;
      },
      finish: () => tf.tidy(() => tf.variable(tf.tensor(values, [...shape]))),
      dispose() {},
    };
  }
  const { dataId, dtype } = heap.allocate(shape);
  const tensor = tf.engine().makeTensorFromTensorInfo({ dataId, shape: [...shape], dtype });
  return {
    add(piece) {
      heap.floats(heap.addressOf(tensor) + 4 * at, piece.length).set(piece);
      at += piece.length;
    },
    finish() {
      const variable = tf.variable(tensor);
      tensor.dispose();
      return variable;
    },
    dispose: () => tensor.dispose(),
  };
}

/** Numbers of bfloat16, by their bits, as float32: a bfloat16 is the upper half of one. */
export function widen(bits: Uint16Array, out: Float32Array): void {
  let done = 0;
  if (currentMachineCode() !== null) {
    const { widen: run, addressOf } = turningCode();
    done = bits.length - (bits.length % 8);
    run(addressOf(bits), addressOf(out), done);
  }
  const words = new Uint32Array(out.buffer, out.byteOffset, bits.length);
  for (let i = done; i < bits.length; i++) words[i] = bits[i]! << 16;
}

/** sum += values, both of the same size. */
export function addTo(sum: Float32Array, values: Float32Array): void {
  const machineCode = currentMachineCode();
  if (machineCode !== null) machineCode.addTo(sum, values);
  else for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!;
}

/** Σ values² */
export function sumOfSquares(values: Float32Array): number {
  const machineCode = currentMachineCode();
  const short = machineCode?.sumOfSquares(values) ?? 0;
  // In float32 squares vanish or overflow long before the numbers do.
  if (short > 0 && Number.isFinite(short)) return short;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  return sum;
}
