import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type PrefixNode, PrefixTree } from '../../../src/models/llama/prefix-tree.ts';

/** A block of 16 ids, the given ones first. */
const block = (...first: number[]) => [...first, ...Array.from({ length: 16 - first.length }, () => 9)];

/** Adds all whole blocks of `ids`, in use once, under the numbers `name`, `name + 1` … */
function add(tree: PrefixTree, ids: readonly number[], name: number): PrefixNode[] {
  const path: PrefixNode[] = [];
  for (let index = 0; (index + 1) * 16 <= ids.length; index++) {
    path.push(tree.extend(path.at(-1) ?? null, ids, index, name + index));
  }
  return path;
}
const blocksOf = (path: readonly PrefixNode[]) => path.map(({ block: name }) => name);
const found = (tree: PrefixTree, ids: readonly number[], limit = ids.length) =>
  blocksOf(tree.find(ids, limit));

test('of a known prefix no block is found that the limit cuts', () => {
  const tree = new PrefixTree();
  const ids = [...block(1), ...block(2), ...block(3)];
  add(tree, ids, 10);
  for (const [limit, blocks] of [
    [0, []],
    [15, []],
    [16, [10]],
    [31, [10]],
    [32, [10, 11]],
    [47, [10, 11]],
    [48, [10, 11, 12]],
    [-1, []],
  ] as const) {
    assert.equal(found(tree, ids, limit), blocks, `limit ${limit}`);
  }
});

test('a block is known by all its ids and by all blocks before it', () => {
  const tree = new PrefixTree();
  const ids = [...block(1, 23), ...block(4)];
  assert.equal(
    add(tree, ids, 10).map(({ key }) => key),
    [block(1, 23).join(' '), block(4).join(' ')],
    'its own ids name it, its place in the tree does the rest',
  );
  // Every single id counts, and where one id ends and the next begins.
  for (let at = 0; at < 16; at++) assert.equal(found(tree, ids.with(at, 7)), [], `id ${at}`);
  for (let at = 16; at < 32; at++) assert.equal(found(tree, ids.with(at, 7)), [10], `id ${at}`);
  assert.equal(found(tree, [...block(12, 3), ...block(4)]), []);
  assert.equal(found(tree, [...block(123), ...block(4)]), []);
  assert.equal(found(tree, block(4)), [], 'the second block is none to begin with');
  add(tree, [...block(5), ...block(4)], 20);
  assert.equal(found(tree, [...block(5), ...block(4)]), [20, 21]);
  assert.equal(found(tree, ids), [10, 11]);
});

test('a block that is known already is taken into use, and the new one left alone', () => {
  const tree = new PrefixTree();
  const [first] = add(tree, block(1), 10);
  assert.is(tree.extend(null, block(1), 0, 99), first);
  assert.is(first!.users, 2);
  tree.release([first!]);
  assert.is(tree.forgetOne(), null, 'one of the two still uses it');
  tree.release([first!]);
  const again = tree.extend(null, block(1), 0, 99);
  assert.is(again, first);
  assert.is(tree.forgetOne(), null, 'an idle one is in use again');
  tree.release([again]);
  assert.is(tree.forgetOne(), 10);
  assert.equal(found(tree, block(1)), [], 'what is forgotten is not found');
  assert.is(tree.forgetOne(), null);
});

test('the path released first is forgotten first, from its end to its beginning', () => {
  const tree = new PrefixTree();
  const long = add(tree, [...block(1), ...block(2), ...block(3)], 10);
  const other = add(tree, [...block(5), ...block(6)], 20);
  tree.release(other);
  tree.release(long);
  // To be used again moves a path to the back; its first block alone does not save what follows it.
  const [start] = tree.find([...block(5), ...block(6)], 16);
  tree.hold([start!]);
  tree.release([start!]);
  assert.equal(
    Array.from({ length: 6 }, () => tree.forgetOne()),
    [21, 12, 11, 10, 20, null],
  );
});

test('what is in use is never forgotten, and neither is what lies before it', () => {
  const tree = new PrefixTree();
  const ids = [...block(1), ...block(2)];
  const path = add(tree, ids, 10);
  const branch = tree.extend(path[0]!, [...block(1), ...block(3)], 1, 30);
  tree.release(path);
  assert.is(path[0]!.users, 0);
  // The branch alone would not hold its parent: whoever reads on holds the whole path.
  tree.hold([path[0]!]);
  assert.is(tree.forgetOne(), 11);
  assert.is(tree.forgetOne(), null);
  assert.equal(found(tree, [...block(1), ...block(3)]), [10, 30]);
  tree.release([path[0]!, branch]);
  assert.equal([tree.forgetOne(), tree.forgetOne(), tree.forgetOne()], [30, 10, null]);
});

test('the longest beginning of a block behind a path is found, of whole ones and of tails, within the limit', () => {
  const tree = new PrefixTree();
  const [whole] = add(tree, block(1, 2, 3), 10);
  const growing = [1, 2];
  const tail = tree.addTail(null, growing, 20);
  const behind = tree.addTail(whole!, [5, 6], 30);
  const part = (path: readonly PrefixNode[], ids: readonly number[], limit = ids.length) => {
    const found = tree.findPart(path, ids, limit);
    return found && [found.node.block, found.tokens];
  };
  assert.equal(part([], [1, 2, 3, 7]), [10, 3]);
  assert.equal(part([], [1, 2, 3, 7], 2), [20, 2], 'the earlier one where both have as much');
  growing.push(3, 7);
  assert.equal(part([], [1, 2, 3, 7]), [20, 4]);
  assert.is(part([], [2]), null);
  assert.is(part([], [1], 0), null);
  assert.equal(part([whole!], [...block(1, 2, 3), 5, 6, 7]), [30, 2]);
  assert.is(tree.isRepeated(tail), false);
  growing.pop();
  assert.is(tree.isRepeated(tail), true, 'the whole block begins so');
  assert.is(tree.isRepeated(behind), false);
  tree.dropTail(tail);
  assert.equal(part([], [1, 2, 3, 7]), [10, 3]);
});

test('a tail in use is not forgotten; released, it goes before the block before it', () => {
  const tree = new PrefixTree();
  const [whole] = add(tree, block(1), 10);
  const tail = tree.addTail(whole!, [5], 30);
  assert.is(tree.forgetOne(), null);
  tree.release([whole!, tail]);
  assert.is(tree.forgetOne(), 30);
  assert.is(tree.findPart([whole!], [...block(1), 5], 17), null);
  assert.is(tree.forgetOne(), 10);
});

test.run();
