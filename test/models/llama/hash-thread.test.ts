import { once } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OptimaError } from '../../../src/domain/errors.ts';
import { createHash16 } from '../../../src/domain/hash.ts';
import { createHashThread, program } from '../../../src/models/llama/hash-thread.ts';

/** As much as is worth a thread. */
const large = 2 ** 26;

/** A thread that runs this, which keeps the process as long as it runs. */
async function createSeen(text: string) {
  // The threads of other tests have been told of.
  await new Promise(setImmediate);
  const made = once(process, 'worker');
  const hash = createHashThread(large, text);
  const [worker] = (await made) as [Worker];
  worker.ref();
  return { hash, worker };
}

test('a thread hashes as this one does, texts and bytes, longer and shorter than what it takes at a time', () => {
  const bytes = Uint8Array.from({ length: 2 ** 24 + 12_345 }, (_, i) => (i * 7) ^ (i >> 9));
  for (const size of [0, large]) {
    const [hash, expected] = [createHashThread(size), createHash16()].map((hash) => {
      hash.update('a policy').update(bytes).update('').update(bytes.subarray(3, 1000));
      for (let i = 0; i < 20; i++) hash.update(`\n${i}`);
      return hash.digest();
    });
    assert.is(hash, expected);
  }
});

test('a thread that is woken before there is another piece waits on', async () => {
  const woken = `let calls = 0;
    Atomics.wait = () => {
      if (++calls === 100) require('node:worker_threads').parentPort.postMessage('often enough');
      return 'ok';
    };`;
  const { hash, worker } = await createSeen(woken + program);
  await once(worker, 'message');
  const expected = createHash16();
  for (let i = 0; i < 20; i++) for (const one of [hash, expected]) one.update(`${i}`);
  assert.is(hash.digest(), expected.digest());
  hash.stop();
});

test('a thread that is stopped ends, and so does the process', () => {
  createHashThread(large).update('half of it').stop();
});

const isFailure = (pattern: RegExp) => (error: unknown) =>
  error instanceof OptimaError && error.code === 'model.failed' && pattern.test(error.message);

test('a thread that fails ends the waiting for it at once, and is stopped without a word', () => {
  const hash = createHashThread(large, "throw new Error('out of order');");
  assert.throws(() => hash.update(new Uint8Array(2 ** 25)), isFailure(/hashes what is loaded failed/));
  assert.throws(() => hash.digest(), isFailure(/failed/));
  hash.stop();
});

test('a thread that ends between two pieces is not waited for, and why is said', async () => {
  for (const [text, pattern] of [
    ["throw new Error('out of order');", /failed: out of order\.$/],
    ['process.exit();', /failed\.$/],
  ] as const) {
    const { hash, worker } = await createSeen(text);
    await new Promise((resolve) => worker.on('exit', resolve));
    assert.throws(() => hash.update('a piece'), isFailure(pattern));
    hash.stop();
  }
});

test.run();
