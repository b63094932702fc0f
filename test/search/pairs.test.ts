import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { childId, type NodeId } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { keepPairs, type Pair, pairsOf, type SearchTree } from '../../src/search/index.ts';
import { live, root, searched, type Written } from './worlds.ts';

const say = (reward: number | null, ...turns: Written['turns']): Written => ({ turns, reward });
const every = { pairs: 'all', thetaFilter: 0.4, thetaDiff: 0.2 } as const;
const extremes = { ...every, pairs: 'extremes' } as const;
const textsOf = (tree: SearchTree, pairs: readonly Pair[]) =>
  pairs.map(({ chosen, rejected }) => [chosen, rejected].map((id) => tree.nodes.get(id)!.text).join(' > '));

test('of every two children with values the better one is chosen, if it is good and the gap large enough', () => {
  const { tree } = searched(
    {},
    say(0.5, 'low'),
    say(1, 'high'),
    say(0.75, 'middle'),
    say(null, 'failed'),
    say(1, 'inner', 'one'),
    say(0, 'inner', 'two'),
  );
  const { pairs, dropped } = pairsOf(tree, every);
  assert.equal(textsOf(tree, pairs), [
    'high > low',
    'middle > low',
    'high > middle',
    'high > inner',
    'middle > inner',
    'one > two',
  ]);
  assert.equal(pairs[1], {
    parent: root,
    chosen: childId(root, 2),
    rejected: childId(root, 0),
    value: 0.75,
    gap: 0.25,
  });
  assert.is(pairs.at(-1)!.parent, childId(root, 4));
  // low and inner are both worth 0.5.
  assert.equal(dropped, { sameText: 0, notEligible: 0, belowFilter: 0, gapTooSmall: 1 });
});

test('what a value counts for is said from outside, before it is compared with anything', () => {
  const { tree } = searched({}, say(0.5, 'low'), say(1, 'high'));
  const turned = pairsOf(
    tree,
    every,
    undefined,
    (value, node) => (node === childId(root, 0) ? 3 : 2) * value,
  );
  assert.equal(textsOf(tree, turned.pairs), ['high > low']);
  assert.equal([turned.pairs[0]!.value, turned.pairs[0]!.gap], [2, 0.5]);
  const worse = pairsOf(tree, every, undefined, (value) => 1 - value);
  assert.equal(textsOf(tree, worse.pairs), ['low > high']);
});

test('extremes are the best child against the worst', () => {
  const { tree } = searched(
    {},
    say(0.5, 'low'),
    say(1, 'high'),
    say(1, 'equal'),
    say(0.5, 'worst'),
    say(null, 'failed'),
    say(0.75, 'alone', 'x'),
  );
  assert.equal(textsOf(tree, pairsOf(tree, extremes).pairs), ['high > worst']);
});

test('values at the thresholds are not above them', () => {
  const { tree } = searched({}, say(0.5, 'high'), say(0.25, 'low'));
  const at = (thetaFilter: number, thetaDiff: number) => pairsOf(tree, { ...every, thetaFilter, thetaDiff });
  assert.is(at(0.49, 0.24).pairs.length, 1);
  assert.equal(at(0.5, 0.24).dropped, { sameText: 0, notEligible: 0, belowFilter: 1, gapTooSmall: 0 });
  assert.equal(at(0.49, 0.25).dropped, { sameText: 0, notEligible: 0, belowFilter: 0, gapTooSmall: 1 });
  assert.is(at(0.5, 0.24).pairs.length + at(0.49, 0.25).pairs.length, 0);
});

test('what may not be chosen may still be rejected', () => {
  const { tree } = searched({}, say(0.5, 'low'), say(1, 'high'), say(0, 'none'));
  const mayChoose = (node: NodeId) => tree.nodes.get(node)!.text === 'low';
  const { pairs, dropped } = pairsOf(tree, every, mayChoose);
  assert.equal(textsOf(tree, pairs), ['low > none']);
  assert.is(dropped.notEligible, 2);
  assert.is(pairsOf(tree, extremes, mayChoose).dropped.notEligible, 1);
});

test('of two equal children the earlier one is the one that would be chosen', () => {
  const { tree } = searched({}, say(1, 'early'), say(1, 'late'));
  const mayChoose = (node: NodeId) => tree.nodes.get(node)!.text === 'early';
  for (const config of [every, extremes]) assert.is(pairsOf(tree, config, mayChoose).dropped.gapTooSmall, 1);
});

test('pairs of equal texts are dropped, for that reason first', () => {
  const { tree } = searched({ mergeBelow: 0 }, say(1, 'same'), say(0, 'same'), say(0, 'other'));
  for (const mayChoose of [() => true, () => false])
    assert.is(pairsOf(tree, every, mayChoose).dropped.sameText, 1);
  assert.equal(textsOf(tree, pairsOf(tree, every).pairs), ['same > other']);
});

test('in random worlds pairs obey the thresholds, the dropped ones are accounted for, and all has extremes', () => {
  let found = 0;
  for (let seed = 0; seed < 40; seed++) {
    const { tree } = live(seed).search;
    const all = pairsOf(tree, every);
    let siblings = 0;
    for (const { children } of tree.nodes.values()) {
      const valued = children.filter((child) => tree.nodes.get(child)!.value !== null).length;
      siblings += (valued * (valued - 1)) / 2;
    }
    assert.is(all.pairs.length + Object.values(all.dropped).reduce((sum, count) => sum + count), siblings);
    for (const { parent, chosen, rejected, value, gap } of all.pairs) {
      const [better, worse] = [tree.nodes.get(chosen)!, tree.nodes.get(rejected)!];
      assert.ok(better.parent === parent && worse.parent === parent);
      assert.ok(value === better.value && gap === value - worse.value!);
      assert.ok(value > 0.4 && gap > 0.2);
    }
    const { pairs } = pairsOf(tree, extremes);
    const keys = new Set(all.pairs.map((pair) => JSON.stringify(pair)));
    for (const pair of pairs) assert.ok(keys.has(JSON.stringify(pair)));
    const parents = pairs.map(({ parent }) => parent);
    assert.is(new Set(parents).size, parents.length);
    assert.equal(
      parents,
      [...tree.nodes.keys()].filter((node) => all.pairs.some((pair) => pair.parent === node)),
    );
    found += pairs.length;
  }
  assert.ok(found > 40);
});

const pairOf = (name: string, value: number): Pair => ({
  parent: root,
  chosen: name as NodeId,
  rejected: 'r' as NodeId,
  value,
  gap: 1,
});
const names = (kept: readonly (readonly Pair[])[]) =>
  kept.map((pairs) => pairs.map(({ chosen }) => chosen).join(''));
const tasks = [
  [pairOf('a', 1), pairOf('b', 3), pairOf('c', 2), pairOf('d', 3), pairOf('e', 1)],
  [],
  [pairOf('f', 1)],
  [pairOf('g', 2), pairOf('h', 5)],
];

test('of each task the better half is kept, one of a single pair, the earlier of equals', () => {
  assert.equal(names(keepPairs(tasks, { share: 0.5, per: 'task' })), ['bd', '', 'f', 'h']);
  assert.equal(names(keepPairs(tasks, { share: 0.2, per: 'task' })), ['b', '', 'f', 'h']);
  assert.equal(names(keepPairs(tasks, { share: 1, per: 'task' })), ['abcde', '', 'f', 'gh']);
});

test('of an iteration the better half of all pairs is kept, task by task', () => {
  assert.equal(names(keepPairs(tasks, { share: 0.5, per: 'iteration' })), ['bcd', '', '', 'h']);
  assert.equal(names(keepPairs(tasks, { share: 0.01, per: 'iteration' })), ['', '', '', 'h']);
  assert.equal(names(keepPairs([[], []], { share: 0.5, per: 'iteration' })), ['', '']);
});

test('a share that comes to whole pairs is not rounded down', () => {
  const hundred = Array.from({ length: 100 }, (_, i) => pairOf(String(i), i));
  for (let percent = 1; percent <= 100; percent++)
    assert.is(keepPairs([hundred], { share: percent / 100, per: 'task' })[0]!.length, percent);
});

test('what is kept is the share, and no pair left out is better', () => {
  const rng = createRng('keep');
  for (let trial = 0; trial < 200; trial++) {
    const perTask = Array.from({ length: rng.int(5) + 1 }, (_, task) =>
      Array.from({ length: rng.int(7) }, (_, i) => pairOf(`${task}.${i}`, rng.int(6))),
    );
    const share = 0.05 + rng.next() * 0.95;
    for (const per of ['task', 'iteration'] as const) {
      const kept = keepPairs(perTask, { share, per });
      const groups =
        per === 'task' ? perTask.map((pairs, i) => [pairs, kept[i]!]) : [[perTask.flat(), kept.flat()]];
      for (const [pairs, some] of groups) {
        assert.is(some!.length, Math.min(pairs!.length, Math.max(1, Math.floor(pairs!.length * share))));
        const left = pairs!.filter((pair) => !some!.includes(pair));
        for (const pair of left) assert.ok(some!.every(({ value }) => value >= pair.value));
      }
    }
  }
});

test.run();
