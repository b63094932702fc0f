import { createRequire } from 'node:module';
import { type Test, test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../src/domain/errors.ts';
import { backendNames } from '../../src/tensor/engine.ts';
import { heapBytes, startEngine, tf } from '../../src/tensor/index.ts';

// The engine starts once per process, so these tests run in order: what fails first, what starts last.

async function failure(start: () => Promise<unknown>): Promise<OptimaError> {
  try {
    await start();
  } catch (error) {
    assert.instance(error, OptimaError);
    return error as OptimaError;
  }
  return assert.unreachable('the engine started') as never;
}

async function withEnvironment<T>(variables: Record<string, string>, body: () => Promise<T>): Promise<T> {
  Object.assign(process.env, variables);
  try {
    return await body();
  } finally {
    for (const name of Object.keys(variables)) delete process.env[name];
  }
}

test('an unknown OPTIMA_BACKEND is refused with the nearest name', async () => {
  const error = await withEnvironment({ OPTIMA_BACKEND: 'tensorflwo' }, () => failure(() => startEngine()));
  assert.is(error.code, 'usage');
  assert.match(error.message, 'one of auto, tensorflow, wasm, cpu');
  assert.is(error.hint, 'Did you mean tensorflow?');
});

test('OPTIMA_MACHINE_CODE is on or off', async () => {
  const variables = { OPTIMA_BACKEND: 'wasm', OPTIMA_MACHINE_CODE: '0' };
  const error = await withEnvironment(variables, () => failure(() => startEngine()));
  assert.is(error.code, 'usage');
  assert.match(error.message, 'OPTIMA_MACHINE_CODE is "0", which is not one of on, off.');
});

test('a library that OPTIMA_BLAS names and that does not load is an error', async () => {
  const variables = { OPTIMA_BLAS: '/nowhere/libblas.so' };
  const error = await withEnvironment(variables, () => failure(() => startEngine({ backend: 'wasm' })));
  assert.is(error.code, 'backend.unavailable');
  assert.match(error.message, '/nowhere/libblas.so');
  assert.match(error.hint!, 'OPTIMA_BLAS=off');
});

const isInstalled = (name: string): boolean => {
  try {
    return createRequire(import.meta.url).resolve(name) !== '';
  } catch {
    return false;
  }
};
const hasTensorflow = isInstalled('@tensorflow/tfjs-node-gpu');
if (hasTensorflow) console.log('skipped: a missing tensorflow backend: tfjs-node-gpu is installed');
const testWithout = (hasTensorflow ? test.skip : test) as Test;

testWithout('a backend that was asked for and is not installed is an error with a hint', async () => {
  const error = await failure(() => startEngine({ backend: 'tensorflow' }));
  assert.is(error.code, 'backend.unavailable');
  assert.match(error.message, 'Backend "tensorflow" does not start: not installed.');
  assert.match(error.hint!, 'auto');
});

test('the environment chooses backend, machine code and BLAS, silently, and the description says why', async () => {
  const printed: unknown[] = [];
  const { warn, log } = console;
  console.warn = console.log = (...args: unknown[]) => printed.push(args);
  try {
    const variables = { OPTIMA_BACKEND: 'wasm', OPTIMA_BLAS: 'off', OPTIMA_MACHINE_CODE: 'off' };
    const engine = await withEnvironment(variables, () => startEngine());
    assert.is(engine.backend, 'wasm');
    assert.is(engine.blas, null);
    assert.is(
      engine.description,
      'wasm without BLAS (switched off by OPTIMA_BLAS); machine code: switched off by OPTIMA_MACHINE_CODE',
    );
    await tf.setBackend('cpu');
    tf.ones([2]).dispose();
    await tf.setBackend('wasm');
  } finally {
    Object.assign(console, { warn, log });
  }
  assert.equal(printed, []);
});

test('the engine starts once: a later call returns the running one', async () => {
  assert.is(await startEngine(), await startEngine({ backend: 'cpu' }));
  assert.is(tf.getBackend(), 'wasm');
});

test('the wasm backend leaves no listener that would hide an uncaught error', () => {
  assert.is(process.listenerCount('uncaughtException'), 0);
  assert.is(process.listenerCount('unhandledRejection'), 0);
});

test('heapBytes reports the heap', () => {
  assert.ok(heapBytes() >= 1 << 20);
});

test('auto prefers tensorflow, then wasm, then cpu', () => {
  assert.equal([...backendNames], ['tensorflow', 'wasm', 'cpu']);
});

test.run();
