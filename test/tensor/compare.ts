// Runs the same computation on two backends and compares values and gradients.
import type { Test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng, type Rng } from '../../src/domain/rng.ts';
import { type Blas, loadBlas } from '../../src/tensor/blas.ts';
import { startEngine, tf } from '../../src/tensor/index.ts';
import { installWasmKernels, wasmHeap } from '../../src/tensor/wasm/install.ts';
import { assembleMachineCode, type MachineCode } from '../../src/tensor/x86/index.ts';

await startEngine({ backend: 'wasm', blas: false });

const { OPTIMA_MACHINE_CODE, OPTIMA_BLAS: path = '' } = process.env;

/** Machine code over the engine's heap, or why it is not tested. */
export const machineCode: MachineCode | string =
  OPTIMA_MACHINE_CODE === 'off' ? 'switched off by OPTIMA_MACHINE_CODE' : assembleMachineCode(wasmHeap());
const blas =
  path === 'off' ? 'switched off by OPTIMA_BLAS' : loadBlas(['', 'on'].includes(path) ? {} : { path });

/** The ways in which the wasm backend multiplies matrices on this machine. */
export const products: readonly { readonly name: string; readonly install: () => Promise<void> }[] = (() => {
  const use = (name: string, blas: Blas | null, machineCode: MachineCode | null) => ({
    name,
    install: async () => {
      await tf.setBackend('wasm');
      installWasmKernels({ blas, machineCode });
    },
  });
  return [
    use('in WebAssembly', null, null),
    ...(typeof blas === 'string' ? [] : [use(`with ${blas.library}`, blas, null)]),
    ...(typeof machineCode === 'string' ? [] : [use('in machine code', null, machineCode)]),
    ...(typeof machineCode === 'string' || typeof blas === 'string'
      ? []
      : [use(`in machine code with ${blas.library}`, blas, machineCode)]),
  ];
})();

/** What `products` lacks on this machine becomes a skipped test of the file that calls this, with the reason. */
export function skipMissing(test: Test): void {
  for (const [part, found] of [
    ['products in machine code', machineCode],
    ['products through BLAS', blas],
  ] as const) {
    if (typeof found !== 'string') continue;
    console.log(`skipped: ${part}: ${found}`);
    test.skip(`${part} agree with the cpu backend`);
  }
}

/** An input: float32 numbers, or int32 ids when `values` is an Int32Array. */
export interface Input {
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
}

/** Uniform numbers in [-scale, scale). */
export function uniform(rng: Rng, shape: readonly number[], scale = 1): Input {
  const size = shape.reduce((product, n) => product * n, 1);
  return { shape, values: Float32Array.from({ length: size }, () => (rng.next() * 2 - 1) * scale) };
}

export const ids = (rng: Rng, n: number, below: number): Input => ({
  shape: [n],
  values: Int32Array.from({ length: n }, () => rng.int(below)),
});

// biome-ignore lint/suspicious/noExplicitAny: the operations take tensors of different ranks
export type Operation = (...inputs: any[]) => tf.Tensor;

export type Output = {
  readonly shape: number[];
  readonly values: Float32Array;
};

/** The value and, for a random upstream gradient, the gradients by the float32 inputs, on one backend. */
export async function evaluate(
  backend: string,
  operation: Operation,
  inputs: readonly Input[],
  gradients: boolean,
): Promise<Output[]> {
  await tf.setBackend(backend);
  return tf.tidy(() => {
    const tensors = inputs.map(({ values, shape }) =>
      tf.tensor(values, [...shape], values instanceof Int32Array ? 'int32' : 'float32'),
    );
    const value = operation(...tensors);
    const outputOf = (tensor: tf.Tensor): Output => ({
      shape: tensor.shape,
      values: tensor.dataSync() as Float32Array,
    });
    const results = [outputOf(value)];
    if (gradients) {
      const learnt = tensors.filter((tensor) => tensor.dtype === 'float32');
      const dy = tf.tensor(uniform(createRng(7), value.shape).values, value.shape);
      const { grads } = tf.engine().gradients(() => operation(...tensors), learnt, dy);
      for (const gradient of grads) results.push(outputOf(gradient));
    }
    return results;
  });
}

/** Asserts that wasm, with each kind of matrix product, gives what the cpu backend gives. */
export async function assertAgrees(
  operation: Operation,
  inputs: readonly Input[],
  options: { gradients?: boolean } = {},
) {
  const expected = await evaluate('cpu', operation, inputs, options.gradients ?? true);
  for (const { name, install } of products) {
    await install();
    const actual = await evaluate('wasm', operation, inputs, options.gradients ?? true);
    const shapes = inputs.map(({ shape }) => `[${shape}]`).join(' ');
    for (const [i, { shape, values }] of expected.entries()) {
      const what = `${i === 0 ? 'value' : `gradient ${i - 1}`} ${name} for ${shapes}`;
      assert.equal(actual[i]!.shape, shape, `shape of ${what}`);
      assertClose(actual[i]!.values, values, what);
    }
  }
}

/** Asserts equality up to 1e-5 of the largest magnitude. */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  what: string,
  tolerance = 1e-5,
) {
  assert.is(actual.length, expected.length, `length of ${what}`);
  let largest = 1;
  for (let i = 0; i < expected.length; i++) largest = Math.max(largest, Math.abs(expected[i]!));
  for (let i = 0; i < expected.length; i++) {
    const off = Math.abs(actual[i]! - expected[i]!);
    assert.ok(off <= tolerance * largest, `${what}: element ${i} is ${actual[i]}, not ${expected[i]}`);
  }
}
