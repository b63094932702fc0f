// Work side by side: who takes what, and what a failure leaves undone.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { inLanes } from '../../src/rollouts/work-queue.ts';

/** Work that ends when the test says so. */
function controlled() {
  const begun: string[] = [];
  const ends = new Map<string, { resolve: () => void; reject: (error: Error) => void }>();
  const awaited = new Map<string, () => void>();
  const work = (worker: string, item: string, index: number) => {
    begun.push(`${worker}: ${item} ${index}`);
    return new Promise<void>((resolve, reject) => {
      ends.set(item, { resolve, reject });
      awaited.get(item)?.();
    });
  };
  const hasBegun = (item: string) =>
    ends.has(item) ? Promise.resolve() : new Promise<void>((resolve) => awaited.set(item, resolve));
  return { begun, work, hasBegun, end: (item: string) => ends.get(item)! };
}

test('items are taken in order by whoever is free, one at a time with each', async () => {
  const { begun, work, hasBegun, end } = controlled();
  const all = inLanes(['x', 'y'], ['a', 'b', 'c', 'd'], work);
  assert.equal(begun, ['x: a 0', 'y: b 1']);
  end('b').resolve();
  await hasBegun('c');
  end('c').resolve();
  await hasBegun('d');
  assert.equal(begun, ['x: a 0', 'y: b 1', 'y: c 2', 'y: d 3']);
  let ended = false;
  void all.then(() => {
    ended = true;
  });
  end('d').resolve();
  await Promise.resolve();
  assert.not(ended);
  end('a').resolve();
  await all;
  assert.is(begun.length, 4);
});

test('after a failure nothing more is begun, and it is told when the others have ended', async () => {
  const { begun, work, end } = controlled();
  const order: string[] = [];
  let stopped!: () => void;
  const stop = new Promise<void>((resolve) => {
    stopped = resolve;
  });
  const all = inLanes(['x', 'y', 'z'], ['a', 'b', 'c', 'd', 'e'], work, () => {
    order.push('stop');
    stopped();
  }).catch((error: Error) => order.push(error.message));
  end('b').reject(new Error('first'));
  await stop;
  order.push('a and c go on');
  end('c').reject(new Error('second'));
  end('a').resolve();
  await all;
  assert.equal(order, ['stop', 'a and c go on', 'stop', 'first']);
  assert.equal(begun, ['x: a 0', 'y: b 1', 'z: c 2']);
});

test('a failure with nothing is a failure, and so is work that throws at once', async () => {
  const outcome = (work: () => Promise<void>) =>
    inLanes([1], [1], work).then(
      () => 'resolved',
      (error) => `rejected with ${error}`,
    );
  assert.is(await outcome(() => Promise.reject(undefined)), 'rejected with undefined');
  const thrown = await outcome(() => {
    throw new Error('at once');
  });
  assert.is(thrown, 'rejected with Error: at once');
  await inLanes([1, 2], [], () => Promise.reject(new Error('nothing to do')));
});

test.run();
