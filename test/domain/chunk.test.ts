import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { chunk } from '../../src/domain/chunk.ts';

test('pieces keep the order and leave no item out, the last one maybe smaller', () => {
  const items = Array.from({ length: 10 }, (_, index) => index);
  const pieces = [...chunk(items, 4)];
  assert.equal(pieces, [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9],
  ]);
  assert.equal(pieces.flat(), items);
  assert.equal([...chunk(items, 5)], [items.slice(0, 5), items.slice(5)]);
  assert.equal([...chunk(items, 100)], [items]);
  assert.equal(
    [...chunk(items, 1)],
    items.map((item) => [item]),
  );
  assert.equal([...chunk([], 4)], []);
});

test('a piece is made when it is asked for', () => {
  const taken: number[] = [];
  function* numbers() {
    for (let number = 0; ; number++) {
      taken.push(number);
      yield number;
    }
  }
  const pieces = chunk(numbers(), 3);
  assert.equal(taken, []);
  assert.equal(pieces.next().value, [0, 1, 2]);
  assert.equal(taken, [0, 1, 2]);
  assert.equal(pieces.next().value, [3, 4, 5]);
  assert.equal(taken, [0, 1, 2, 3, 4, 5]);
});

test.run();
