import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { longestTimerMs, systemClock } from '../../src/domain/clock.ts';

test("the system clock gives the machine's time in milliseconds", () => {
  const before = Date.now();
  const now = systemClock.now();
  assert.ok(before <= now && now <= Date.now(), `${now}`);
});

test('the longest timer is one that Node can wait for, and the last such', async () => {
  // Node cuts what does not fit into 32 bits to a millisecond.
  assert.is((longestTimerMs + 1) | 0, -(2 ** 31));
  let ended = false;
  const timer = setTimeout(() => {
    ended = true;
  }, longestTimerMs);
  await new Promise((resolve) => setTimeout(resolve, 10));
  clearTimeout(timer);
  assert.not(ended);
});

test.run();
