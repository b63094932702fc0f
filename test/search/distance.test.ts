import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { editDistance } from '../../src/domain/errors.ts';
import { createRng } from '../../src/domain/rng.ts';
import { distanceBelow, isNearer } from '../../src/search/distance.ts';

test('S is the edit distance by the length of the longer text', () => {
  assert.is(distanceBelow('kitten', 'sitting', 1), 3 / 7);
  assert.is(distanceBelow('sitting', 'kitten', 1), 3 / 7);
  assert.is(distanceBelow('abc', 'xyz', 2), 1);
  assert.is(distanceBelow('', 'ab', 2), 1);
});

test('equal texts are at 0, empty ones too, and 0 is not below 0', () => {
  assert.is(distanceBelow('', '', 0.1), 0);
  assert.is(distanceBelow('same', 'same', 0.1), 0);
  assert.is(distanceBelow('', '', 0), null);
});

test('a text exactly at the limit is not nearer', () => {
  assert.not(isNearer('abcd', 'abcx', 0.25));
  assert.ok(isNearer('abcd', 'abcx', 0.2500001));
  assert.not(isNearer('abcdefghij', 'abcdefghi', 0.1));
});

test('S agrees with the whole table on random texts, for any limit', () => {
  const rng = createRng('distance');
  for (let trial = 0; trial < 4000; trial++) {
    const word = () => Array.from({ length: rng.int(14) }, () => rng.pick([...'abc'])).join('');
    const [a, b] = [word(), word()];
    const longest = Math.max(a.length, b.length);
    const whole = longest === 0 ? 0 : editDistance(a, b) / longest;
    // Every other limit is one that S can reach exactly.
    const limit = trial % 2 === 0 ? rng.next() * 1.2 : rng.int(8) / Math.max(longest, 1);
    assert.is(distanceBelow(a, b, limit), whole < limit ? whole : null, `${a}|${b}|${limit}`);
  }
});

test.run();
