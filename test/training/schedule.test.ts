// The learning rate over the steps of a run.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant, warmupCosine } from '../../src/training/schedule.ts';

const round = (values: number[]) => values.map((value) => Number(value.toFixed(6)));

test('the rate rises linearly, then falls along half a cosine to the floor', () => {
  const schedule = warmupCosine({ peak: 1, floor: 0.2, warmupSteps: 3, steps: 7 });
  const rates = round(Array.from({ length: 9 }, (_, step) => schedule(step)));
  // 0.6 + 0.4 · cos(π · k / 4) for k = 0 … 4, then the floor.
  assert.equal(rates, [0.25, 0.5, 0.75, 1, 0.882843, 0.6, 0.317157, 0.2, 0.2]);
});

test('without warm-up the first step has the peak rate', () => {
  const schedule = warmupCosine({ peak: 2, floor: 0, warmupSteps: 0, steps: 2 });
  assert.equal(round([schedule(0), schedule(1), schedule(2)]), [2, 1, 0]);
});

test('a run of nothing but warm-up never divides by zero', () => {
  const schedule = warmupCosine({ peak: 2, floor: 0, warmupSteps: 1, steps: 1 });
  assert.equal([schedule(0), schedule(1)], [1, 2]);
});

test('a constant schedule is constant', () => {
  assert.equal([constant(3)(0), constant(3)(99)], [3, 3]);
});

test.run();
