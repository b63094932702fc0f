import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemClock } from '../../src/domain/clock.ts';

test("the system clock gives the machine's time in milliseconds", () => {
  const before = Date.now();
  const now = systemClock.now();
  assert.ok(before <= now && now <= Date.now(), `${now}`);
});

test.run();
