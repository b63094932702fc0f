import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { FillTrace } from '../../../src/models/llama/fill.ts';

test('a loop of any length is kept as means of equally many steps each', () => {
  const fill = new FillTrace();
  assert.equal(fill.parts, []);
  for (let step = 0; step < 64; step++) fill.add(step);
  assert.equal(
    fill.parts,
    Array.from({ length: 64 }, (_, step) => step),
  );
  fill.add(100);
  assert.is(fill.steps, 65);
  assert.equal(fill.parts.slice(0, 3), [0.5, 2.5, 4.5]);
  assert.equal(fill.parts.slice(31), [62.5, 100], 'the last part is not full yet');
  for (let step = 65; step < 1000; step++) fill.add(7);
  assert.is(fill.steps, 1000);
  assert.is(fill.rows, (64 * 63) / 2 + 100 + 935 * 7);
  assert.is(fill.parts.length, Math.ceil(1000 / 16));
  assert.is(fill.parts.at(-1), 7);
});

test.run();
