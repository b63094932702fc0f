// The sum of several passes: the same whichever is done first, and no array is let go that is still needed.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PassSum } from '../../src/training/gradients.ts';

/** A pass over the parameters named; its numbers are such that float32 sums depend on their order. */
const pass = (loss: number, gradients: Record<string, number[]>) => ({
  loss,
  gradients: new Map(Object.entries(gradients).map(([name, values]) => [name, Float32Array.from(values)])),
});
const passes = () => [
  pass(1, { a: [1e8, 1] }),
  pass(2, { a: [1, 2], b: [5] }),
  pass(3, { a: [-1e8, 3], b: [6] }),
  pass(4, {}),
];

test('passes are added in their order, whichever is done first', () => {
  const results = [
    [0, 1, 2, 3],
    [3, 2, 1, 0],
    [1, 0, 3, 2],
  ].map((order) => {
    const sum = new PassSum();
    const all = passes();
    for (const index of order) sum.add(index, all[index]!);
    return sum.total;
  });
  for (const { loss, gradients } of results) {
    assert.is(loss, 10);
    assert.equal([...gradients.get('a')!], [0, 6]); // 1e8 + 1 is 1e8 in float32
    assert.equal([...gradients.get('b')!], [11]);
  }
});

test('the arrays of a pass are released once they have been added, and never those that hold the sum', () => {
  const sum = new PassSum();
  const released: number[] = [];
  const all = passes();
  for (const index of [2, 1, 0, 3]) {
    sum.add(index, all[index]!, () => released.push(index));
    if (index > 0 && index < 3) assert.equal(released, [], 'those before it are not done');
  }
  // The sum of a is kept in the arrays of pass 0, that of b in those of pass 1.
  assert.equal(released, [2, 3]);
});

test.run();
