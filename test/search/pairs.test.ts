import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NodeId } from '../../src/domain/ids.ts';
import { keepPairs, type Pair, pairsOf, type SearchTree } from '../../src/search/index.ts';
import { searchWorld } from './toy.ts';

const id = (name: string) => name as NodeId;

/** A root with leaves of these values and texts. */
function flat(leaves: readonly (readonly [name: string, value: number | null, text?: string])[]): SearchTree {
  const node = (name: string, parent: string | null, children: string[], text = name) => ({
    ...{ id: id(name), parent: parent === null ? null : id(parent), children: children.map(id), text },
    ...{ depth: 0, height: 0, visits: 1, ended: new Map<number, number>(), meanLogprob: 0 },
  });
  const names = leaves.map(([name]) => name);
  const nodes = [node('root', null, names), ...leaves.map(([name, , text]) => node(name, 'root', [], text))];
  const values = new Map(leaves.map(([name, value]) => [name, value]));
  return {
    root: id('root'),
    nodes: new Map(nodes.map((each) => [each.id, each])),
    valueOf: (name) => values.get(name) ?? null,
  };
}

const named = (pairs: readonly Pair[]) => pairs.map(({ chosen, rejected }) => `${chosen}>${rejected}`);
const thresholds = { thetaFilter: 0.4, thetaDiff: 0.2 };

test('all siblings are paired whose better value and difference are above the thresholds', () => {
  const tree = flat([
    ['a', 0.4],
    ['b', 0.9],
    ['c', 0.75],
    ['d', 0.1],
    ['e', null],
    ['f', 0.41],
  ]);
  const { pairs, dropped } = pairsOf(tree, { from: 'all', ...thresholds });
  assert.equal(named(pairs), ['b>f', 'b>a', 'b>d', 'c>f', 'c>a', 'c>d', 'f>d']);
  assert.is(pairs[0]!.value, 0.9);
  assert.ok(Math.abs(pairs[0]!.gap - 0.49) < 1e-12);
  assert.is(pairs[0]!.parent, 'root');
  // a > d is at θ_filter; b > c and f > a differ by too little.
  assert.equal(dropped, { belowFilter: 1, gapTooSmall: 2, sameText: 0, notEligible: 0 });
  assert.equal(named(pairsOf(tree, { from: 'extremes', ...thresholds }).pairs), ['b>d']);
  assert.equal(named(pairsOf(tree, { from: 'extremes', thetaFilter: 0.9, thetaDiff: 0 }).pairs), []);
  assert.equal(pairsOf(flat([['a', 1]]), { from: 'extremes', ...thresholds }).pairs, []);
});

test('a difference of exactly θ_diff is none, and neither are two turns of one text', () => {
  const tree = flat([
    ['a', 1, 'same'],
    ['b', 0.75],
    ['c', 0.5, 'same'],
  ]);
  const { pairs, dropped } = pairsOf(tree, { from: 'all', thetaFilter: 0, thetaDiff: 0.25 });
  assert.equal(pairs, []);
  assert.equal(dropped, { belowFilter: 0, gapTooSmall: 2, sameText: 1, notEligible: 0 });
});

test('what may not be learnt from is never the better one, but may be the worse', () => {
  const tree = flat([
    ['loop', 0.9],
    ['a', 0.6],
    ['b', 0.1],
  ]);
  const may = (node: NodeId) => node !== 'loop';
  const { pairs, dropped } = pairsOf(tree, { from: 'all', ...thresholds }, may);
  assert.equal(named(pairs), ['a>b']);
  assert.is(dropped.notEligible, 2);
  assert.equal(
    named(
      pairsOf(
        flat([
          ['loop', 0.1],
          ['a', 0.6],
        ]),
        { from: 'all', ...thresholds },
        may,
      ).pairs,
    ),
    ['a>loop'],
  );
});

test('in searched trees both ways of pairing keep to the thresholds', () => {
  let found = 0;
  for (let seed = 0; seed < 40; seed++) {
    const { tree } = searchWorld({ seed, turns: 5, length: 3, failures: 0.1 }).search;
    const all = pairsOf(tree, { from: 'all', ...thresholds }).pairs;
    const extremes = pairsOf(tree, { from: 'extremes', ...thresholds }).pairs;
    for (const { parent, chosen, rejected, value, gap } of all) {
      assert.is(tree.nodes.get(chosen)!.parent, parent);
      assert.is(tree.nodes.get(rejected)!.parent, parent);
      assert.is(value, tree.valueOf(chosen));
      assert.is(gap, value - tree.valueOf(rejected)!);
      assert.ok(value > 0.4 && gap > 0.2);
    }
    for (const pair of extremes) assert.ok(named(all).includes(named([pair])[0]!));
    assert.ok(new Set(extremes.map(({ parent }) => parent)).size === extremes.length);
    found += extremes.length;
  }
  assert.ok(found > 40);
});

const pair = (name: string, value: number): Pair => ({
  ...{ parent: id('p'), chosen: id(name), rejected: id('z'), value, gap: 1 },
});
const names = (tasks: readonly (readonly Pair[])[]) => tasks.map((task) => task.map(({ chosen }) => chosen));

test('the better half of each task is kept, one at least, or that of all tasks', () => {
  const tasks = [
    [pair('a', 0.5), pair('b', 0.9), pair('c', 0.7), pair('d', 0.7), pair('e', 0.1)],
    [pair('f', 0.2)],
    [],
    [pair('g', 0.95), pair('h', 0.3), pair('i', 0.6)],
  ];
  assert.equal(names(keepPairs(tasks, { share: 0.5, per: 'task' })), [['b', 'c'], ['f'], [], ['g']]);
  assert.equal(names(keepPairs(tasks, { share: 1, per: 'task' })), [
    ['b', 'c', 'd', 'a', 'e'],
    ['f'],
    [],
    ['g', 'i', 'h'],
  ]);
  assert.equal(names(keepPairs(tasks, { share: 0.5, per: 'iteration' })), [['b', 'c', 'd'], [], [], ['g']]);
  assert.equal(names(keepPairs([[], []], { share: 0.5, per: 'iteration' })), [[], []]);
});

test.run();
