import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { groupByLength, padSequences } from '../../../src/models/llama/length-groups.ts';
import { startEngine } from '../../../src/tensor/index.ts';

test.before(async () => {
  await startEngine();
});

const grouped = (lengths: readonly number[]) => groupByLength(lengths, (length) => length);

test('a group ends where a sequence is longer than 1.25 times its shortest one and 16 tokens', () => {
  // 1.25 · 40 + 16 = 66
  assert.equal(grouped([40, 66]), [[40, 66]]);
  assert.equal(grouped([40, 67]), [[40], [67]]);
  assert.equal(grouped([0, 16, 17]), [[0, 16], [17]]);
  // The shortest of the group decides, not the one before: 60 · 1.25 + 16 would take 80.
  assert.equal(grouped([40, 60, 80, 100]), [
    [40, 60],
    [80, 100],
  ]);
});

test('groups come shortest first, and items of one length in their order', () => {
  const items = [
    { name: 'a', length: 90 },
    { name: 'b', length: 3 },
    { name: 'c', length: 90 },
    { name: 'd', length: 5 },
    { name: 'e', length: 3 },
  ];
  const before = structuredClone(items);
  const groups = groupByLength(items, ({ length }) => length);
  assert.equal(
    groups.map((group) => group.map(({ name }) => name).join('')),
    ['bed', 'ac'],
  );
  assert.equal(items, before, 'the list itself stays as it was');
  assert.equal(grouped([]), []);
});

test('sequences are padded at their end with zeros to the longest', () => {
  const padded = padSequences([[5, 6], [], [7, 8, 9], [4]]);
  assert.equal(padded.shape, [4, 3]);
  assert.is(padded.dtype, 'int32');
  assert.equal(padded.arraySync(), [
    [5, 6, 0],
    [0, 0, 0],
    [7, 8, 9],
    [4, 0, 0],
  ]);
  padded.dispose();
});

test.run();
