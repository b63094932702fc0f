import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { distanceBelow, isNearer } from '../../src/search/distance.ts';
import { editDistance } from '../support/edit-distance.ts';

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

test('edit distances are the hand-counted ones, in both directions', () => {
  for (const [a, b, distance] of [
    ['kitten', 'sitting', 3],
    ['flaw', 'lawn', 2],
    ['alice', 'alcie', 2],
    ['same', 'same', 0],
    ['', 'abc', 3],
    ['', '', 0],
    ['abc', 'xabc', 1],
    ['abc', 'abxc', 1],
    ['abc', 'abcx', 1],
    ['abc', 'axc', 1],
    ['abcd', 'xyz', 4],
  ] as const) {
    const share = distance / Math.max(a.length, b.length, 1);
    assert.is(editDistance(a, b), distance, `${a} → ${b}`);
    assert.is(distanceBelow(a, b, 2), share, `${a} → ${b}`);
    assert.is(distanceBelow(b, a, 2), share, `${b} → ${a}`);
  }
});

test('S agrees with the whole table on random texts, for any limit', () => {
  const rng = createRng('distance');
  for (let trial = 0; trial < 4000; trial++) {
    // The library goes on in words of 32 letters.
    const most = trial % 20 === 0 ? 100 : 14;
    const word = () => Array.from({ length: rng.int(most) }, () => rng.pick([...'abc'])).join('');
    const [a, b] = [word(), word()];
    const longest = Math.max(a.length, b.length);
    const whole = longest === 0 ? 0 : editDistance(a, b) / longest;
    // Every other limit is one that S can reach exactly.
    const limit = trial % 2 === 0 ? rng.next() * 1.2 : rng.int(8) / Math.max(longest, 1);
    assert.is(distanceBelow(a, b, limit), whole < limit ? whole : null, `${a}|${b}|${limit}`);
  }
});

test.run();
