// Where a worker thread begins, in this thread: it says whether its engine starts, and answers what it hears.
import { EventEmitter } from 'node:events';
import { syncBuiltinESMExports } from 'node:module';
import threads from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { startEngine } from '../../src/tensor/index.ts';
import type { FromWorker, ToWorker } from '../../src/workers/protocol.ts';

// The module under test talks to `parentPort`; here the test listens there.
const said: FromWorker[] = [];
const port = Object.assign(new EventEmitter(), { postMessage: (message: FromWorker) => said.push(message) });
const begin = async (backend: string) => {
  Object.assign(threads, { parentPort: port, workerData: { engine: { backend, blas: false } } });
  syncBuiltinESMExports();
  await import(`../../src/workers/entry.ts?${backend}`);
  return said.splice(0);
};

test('an engine that does not start is told instead of being ready', async () => {
  const [failure, ...others] = await begin('abacus');
  assert.equal(others, []);
  const { failed } = failure as Extract<FromWorker, { failed: unknown }>;
  assert.is(failed.code, 'backend.unavailable');
  assert.match(failed.message, 'abacus');
  assert.is(port.listenerCount('message'), 0);
});

test('a worker that is ready says with which engine, and answers from then on', async () => {
  const greeting = await begin('wasm');
  assert.equal(greeting, [{ ready: true, engine: (await startEngine()).name }]);
  port.emit('message', { id: 7, command: { type: 'close', session: 1 } } satisfies ToWorker);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(said, [{ id: 7, result: null }]);
});

test.run();
