import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { childId, type NodeId } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { Search } from '../../src/search/index.ts';
import { editDistance } from '../support/edit-distance.ts';
import { hold, live, paper, root, searched } from './worlds.ts';

const begun = () => {
  const search = new Search(root, paper, createRng(1));
  search.ask();
  return search;
};
const turn = (branch: number, text: string, parent: NodeId = root) => ({
  id: childId(parent, branch),
  parent,
  text,
  meanLogprob: -1,
});

test('the first expansion is the root; roll-outs are counted through the search, and then it ends', () => {
  const { expansions, search } = live(3, { expansions: 3 });
  assert.equal(
    expansions.map(({ index, rollouts }) => [index, rollouts]),
    [
      [0, [0, 1, 2]],
      [1, [3, 4, 5]],
      [2, [6, 7, 8]],
    ],
  );
  assert.is(expansions[0]!.node, root);
  assert.is(search.ask(), null);
  assert.is(new Search(root, { ...paper, expansions: 0 }, createRng(1)).ask(), null);
});

test('nothing is asked while a roll-out has not been told', () => {
  const search = begun();
  search.tell(0, root, null);
  search.tell(2, root, null);
  assert.throws(() => search.ask(), /Roll-outs 1 have not been told/);
  search.tell(1, root, null);
  assert.is(search.ask()!.index, 1);
});

test('a sibling nearer than mergeBelow takes the turn up, the nearest of several and the earliest of equals', () => {
  const search = begun();
  const near = (text: string) => search.place(turn(search.tree.nodes.size, text));
  const first = near('abcdefghijklmnopqrst');
  const second = near('abcdefghijklmnopqrXX');
  assert.not(first === second);
  assert.is(near('abcdefghijklmnopqrsX'), first);
  assert.is(near('abcdefghijklmnopqYXX'), second);
  // S is 2/20 at first: not below 0.1.
  const third = near('XXcdefghijklmnopqrst');
  assert.is(search.tree.nodes.size, 4);
  assert.is(near('Xbcdefghijklmnopqrst'), first);
  assert.equal(search.tree.root.children, [first, second, third]);
});

test('of two siblings within reach the nearer one is taken, although it came later', () => {
  const search = new Search(root, { ...paper, mergeBelow: 0.3 }, createRng(1));
  search.ask();
  const first = search.place(turn(0, 'abcdefghij'));
  const second = search.place(turn(1, 'abcdefgXYZ'));
  assert.not(first === second);
  assert.is(search.place(turn(2, 'abcdefghYZ')), second);
  assert.is(search.place(turn(3, 'abcdefghYZ'.replace('Y', 'i'))), first);
});

test('only siblings are merged', () => {
  const search = begun();
  const first = search.place(turn(0, 'the same'));
  const below = search.place(turn(0, 'the same', first));
  assert.not(below === first);
  assert.is(search.place(turn(1, 'the same', first)), below);
  const { depth, parent } = search.tree.nodes.get(below)!;
  assert.equal({ depth, parent }, { depth: 2, parent: first });
});

test('what does not follow from what was asked is refused, and changes nothing', () => {
  const fresh = new Search(root, paper, createRng(1));
  assert.throws(() => fresh.place(turn(0, 'a')), /No roll-out is under way at/);
  const search = searched({ rolloutsPerExpansion: 1 }, { turns: ['aaa', 'b', 'c'], reward: 1 });
  const [first, second] = [childId(root, 0), childId(childId(root, 0), 0)];
  assert.throws(() => search.place(turn(9, 'x', second)), /No roll-out is under way at/);
  assert.throws(() => search.tell(0, first, 1), /No roll-out is under way at/);
  assert.is(search.ask()!.node, first);
  const before = JSON.stringify([...search.tree.nodes]);
  assert.throws(() => search.place(turn(1, 'x')), /No roll-out is under way at/);
  assert.throws(() => search.place(turn(1, 'x', 'nowhere' as NodeId)), /has no node nowhere/);
  assert.throws(() => search.place({ ...turn(0, 'xyz', first) }), /has a node .* already/);
  assert.throws(
    () => search.place({ ...turn(1, 'x', first), meanLogprob: Number.NaN }),
    /log-probability NaN/,
  );
  assert.throws(() => search.tell(0, second, 1), /Roll-out 0 is not under way/);
  assert.throws(() => search.tell(1, root, 1), /No roll-out is under way at/);
  const isInvalid = (error: unknown) => (error as { code?: string }).code === 'reward.invalid';
  assert.throws(() => search.tell(1, second, Number.NaN), isInvalid);
  assert.throws(() => search.tell(1, second, Number.POSITIVE_INFINITY), isInvalid);
  assert.is(JSON.stringify([...search.tree.nodes]), before);
  search.tell(1, second, 1);
  assert.is(search.tree.root.visits, 2);
  assert.throws(() => search.tell(1, second, 1), /No roll-out is under way at/);
});

const distance = (a: string, b: string) => editDistance(a, b) / Math.max(a.length, b.length, 1);

test('merging loses no turn and leaves no two siblings nearer than mergeBelow', () => {
  let merged = 0;
  for (let seed = 0; seed < 25; seed++) {
    const { search, placed } = live(seed);
    const { nodes } = search.tree;
    const seen = new Map<NodeId, NodeId[]>();
    for (const { parent, node, text } of placed) {
      const siblings = seen.get(parent) ?? [];
      seen.set(parent, siblings);
      const near = siblings.filter((sibling) => distance(nodes.get(sibling)!.text, text) < paper.mergeBelow);
      if (near.length === 0) {
        assert.is(nodes.get(node)!.text, text);
        siblings.push(node);
      } else {
        const of = (sibling: NodeId) => distance(nodes.get(sibling)!.text, text);
        assert.is(node, near.toSorted((a, b) => of(a) - of(b))[0]);
        merged++;
      }
    }
    for (const { id, children } of nodes.values()) assert.equal(children, seen.get(id) ?? []);
    assert.is(nodes.size, 1 + [...seen.values()].flat().length);
  }
  assert.ok(merged > 25);
});

test('the same seed grows the same tree, another one another', () => {
  const treeOf = (seed: number) => JSON.stringify([...live(seed).search.tree.nodes]);
  for (let seed = 0; seed < 10; seed++) assert.is(treeOf(seed), treeOf(seed));
  assert.not(treeOf(0) === treeOf(1));
});

test('the generator given is not drawn from', () => {
  const rng = createRng(1);
  hold(new Search(root, { ...paper, rolloutsPerExpansion: 1 }, rng), { turns: ['a', 'b', 'c'], reward: 1 });
  assert.is(rng.next(), createRng(1).next());
});

test.run();
