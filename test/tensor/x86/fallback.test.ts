// The engine's start with machine code that is wrong. It starts once per process, so this has one of its own.
import { createRequire } from 'node:module';
import { type Test, test } from 'uvu';
import * as assert from 'uvu/assert';
import { startEngine, tf } from '../../../src/tensor/index.ts';
import { currentMachineCode, wasmHeap } from '../../../src/tensor/wasm/install.ts';
import { assembleMachineCode, type MachineCode } from '../../../src/tensor/x86/index.ts';

createRequire(import.meta.url)('@tensorflow/tfjs-backend-wasm');
await tf.setBackend('wasm');
const heap = wasmHeap();
const found =
  process.env.OPTIMA_MACHINE_CODE === 'off'
    ? 'switched off by OPTIMA_MACHINE_CODE'
    : assembleMachineCode(heap);
if (typeof found === 'string') console.log(`skipped: machine code: ${found}`);
const machineTest = (typeof found === 'string' ? test.skip : test) as Test;

machineTest(
  'an engine whose machine code is wrong computes in WebAssembly, and says why in one line',
  async () => {
    const { vectors } = found as MachineCode;
    const swiglu = (gate: number, up: number, out: number, length: number) =>
      vectors.swiglu!(gate, up, out, length - 1);
    // It is assembled once for a heap: the engine gets this one.
    Object.assign(found, { vectors: { ...vectors, swiglu } });
    const printed: string[] = [];
    const { warn, log } = console;
    console.warn = console.log = (line: string) => printed.push(line);
    const engine = await startEngine({ backend: 'wasm', blas: false }).finally(() => {
      Object.assign(console, { warn, log });
    });
    const reason = printed[0]!.match(/more slowly: (swiglu gives \S+ where WebAssembly gives \S+)\.$/)?.[1];
    assert.ok(reason, printed[0]);
    assert.is(printed.length, 1);
    assert.is(engine.machineCode, null);
    assert.is(engine.description, `wasm without BLAS (switched off); machine code: ${reason}`);
    assert.is(currentMachineCode(), null);
    const product = tf.tidy(() => [...tf.matMul(tf.ones([2, 3]), tf.ones([3, 2])).dataSync()]);
    assert.equal(product, [3, 3, 3, 3]);
  },
);

test.run();
