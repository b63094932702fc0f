import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { distanceBelow, isNearer } from '../../src/search/distance.ts';

/** The whole table, as the definition says it. */
function editDistance(a: string, b: string): number {
  const table = Array.from({ length: a.length + 1 }, (_, row) =>
    Array.from({ length: b.length + 1 }, (_, column) => (row === 0 ? column : column === 0 ? row : 0)),
  );
  for (let row = 1; row <= a.length; row++) {
    for (let column = 1; column <= b.length; column++) {
      table[row]![column] = Math.min(
        table[row - 1]![column]! + 1,
        table[row]![column - 1]! + 1,
        table[row - 1]![column - 1]! + Number(a[row - 1] !== b[column - 1]),
      );
    }
  }
  return table[a.length]![b.length]!;
}

test('words of the textbooks', () => {
  assert.is(distanceBelow('kitten', 'sitting', 1), 3 / 7);
  assert.is(distanceBelow('flaw', 'lawn', 1), 2 / 4);
  assert.is(distanceBelow('abc', 'abc', 0.01), 0);
  assert.is(distanceBelow('', '', 0.1), 0);
  assert.is(distanceBelow('', '', 0), null);
  assert.is(distanceBelow('abc', 'xyz', 1), null, 'the limit itself is not below it');
  assert.is(distanceBelow('', 'abc', 2), 1);
});

test('what is below a limit is found exactly, for any texts and limits', () => {
  const rng = createRng('distance');
  const text = () => Array.from({ length: rng.int(14) }, () => rng.pick([...'ab c'])).join('');
  let near = 0;
  for (let trial = 0; trial < 3000; trial++) {
    const [a, b, limit] = [text(), text(), rng.int(11) / 10];
    const longest = Math.max(a.length, b.length);
    const distance = longest === 0 ? 0 : editDistance(a, b) / longest;
    const expected = editDistance(a, b) < limit * longest || (longest === 0 && limit > 0) ? distance : null;
    assert.is(distanceBelow(a, b, limit), expected, `${a}|${b}|${limit}`);
    assert.is(isNearer(a, b, limit), expected !== null);
    assert.is(distanceBelow(b, a, limit), expected);
    if (expected !== null) near++;
  }
  assert.ok(near > 500);
});

test.run();
