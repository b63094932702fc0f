import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRng } from '../../src/domain/rng.ts';
import { policies } from '../../src/search/expansion.ts';
import { Search, type SearchConfig, type SearchNode } from '../../src/search/index.ts';
import { editDistance } from '../support/edit-distance.ts';
import { hold, live, paper, root, searched, type Written } from './worlds.ts';

/** The text of the node that is expanded next; empty for the root. */
const next = (search: Search) => search.tree.nodes.get(search.ask()!.node)!.text;
const say = (reward: number | null, ...turns: Written['turns']): Written => ({ turns, reward });

test('neither leaves nor the level above them are expanded, and without a candidate it is the root again', () => {
  const search = searched({}, say(9, 'a'), say(5, 'bbb', 'c'));
  assert.is(next(search), '');
  const one = searched({}, say(9, 'a'), say(5, 'bbb', 'c'), say(0, 'ddd', 'e', 'f'));
  assert.is(next(one), 'ddd');
});

test('the longest branch counts', () => {
  const search = searched({}, say(1, 'aaa', 'b'), say(1, 'aaa', 'ccc', 'd', 'e'), say(1, 'aaa', 'f'));
  assert.is(search.tree.root.height, 4);
  assert.ok(['aaa', 'ccc'].includes(next(search)));
});

test('a node that only failed roll-outs came through is not expanded', () => {
  const search = searched({ temperature: 1e-6 }, say(null, 'aaa', 'b', 'c', 'd'), say(-7, 'xxx', 'y', 'z'));
  assert.is(next(search), 'xxx');
});

test('no node is expanded twice but the root', () => {
  const search = searched({ rolloutsPerExpansion: 1 }, say(1, 'aaa', 'b', 'c'));
  assert.is(search.tree.nodes.get(hold(search, say(1, 'b', 'd')).node)!.text, 'aaa');
  for (let times = 0; times < 3; times++) assert.is(hold(search, say(1, 'a')).node, root);
});

test('a candidate too near to a node selected before is out for good, and the root is not such a node', () => {
  const search = searched(
    { temperature: 1e-6, rolloutsPerExpansion: 2, mergeBelow: 0 },
    say(3, 'abcdefgh', 'b', 'c'),
    // S = 1/8, 2/8.
    say(2, 'abcdefgX', 'b', 'c'),
  );
  hold(search, say(3, 'b', 'c'), say(3, 'b', 'c'));
  // The nearer one was not compared while it was no candidate to choose: it is now.
  const filtered = () =>
    [...search.tree.nodes.values()].filter(({ isFiltered }) => isFiltered).map(({ text }) => text);
  assert.equal(filtered(), []);
  assert.is(hold(search, say(0, 'abcdefXX', 'b', 'c'), say(1, 'q')).node, root);
  assert.equal(filtered(), ['abcdefgX']);
  assert.is(next(search), 'abcdefXX');
});

test('an empty turn is not taken for the root', () => {
  assert.is(next(searched({}, say(1, '', 'b', 'c'))), '');
  const search = searched({}, say(1, '', 'b', 'c'));
  assert.not(search.ask()!.node === root);
});

const texts = ['first', 'other', 'third', 'quick'];
const branches = (...rewards: number[]) => rewards.map((reward, i) => say(reward, texts[i]!, 'b', 'c'));

/** How often of `draws` seeds each text is expanded after the root. */
function shares(config: Partial<SearchConfig>, dialogues: readonly Written[], draws = 1000) {
  const counts: Record<string, number> = {};
  for (let seed = 0; seed < draws; seed++) {
    const rolloutsPerExpansion = dialogues.length;
    const search = new Search(root, { ...paper, ...config, rolloutsPerExpansion }, createRng(seed));
    hold(search, ...dialogues);
    const text = next(search);
    counts[text] = (counts[text] ?? 0) + 1 / draws;
  }
  return counts;
}

/** Four standard deviations of a share near a half over 1000 draws. */
const tolerance = 0.063;

test('softmax draws by exp(value / temperature)', () => {
  for (const temperature of [1, 0.5]) {
    const drawn = shares({ temperature }, branches(1, 0.5, -0.2));
    const weights = [1, 0.5, -0.2].map((value) => Math.exp(value / temperature));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (const [i, weight] of weights.entries())
      assert.ok(Math.abs(drawn[texts[i]!]! - weight / total) < tolerance, `${texts[i]} ${drawn[texts[i]!]}`);
  }
});

test('softmax draws from the best candidates alone, the earlier of equals', () => {
  const drawn = shares({ candidates: 2 }, branches(0, 1, 0, 0.5), 300);
  assert.equal(Object.keys(drawn).sort(), ['other', 'quick']);
  assert.equal(Object.keys(shares({ candidates: 2 }, branches(0, 1, 0), 300)).sort(), ['first', 'other']);
});

test('the draw of an expansion does not depend on those before it', () => {
  const drawsOf = (expansions: number) => {
    const search = new Search(root, { ...paper, expansions, rolloutsPerExpansion: 4 }, createRng(5));
    hold(search, ...branches(0.1, 0.2, 0.3, 0.4));
    return hold(search, say(0, 'x')).node;
  };
  assert.is(drawsOf(2), drawsOf(8));
  const firsts = new Set(Array.from({ length: 20 }, (_, seed) => live(seed).expansions[1]!.node));
  assert.ok(firsts.size > 3);
});

test('temperatures near 0 take the best', () => {
  assert.equal(Object.keys(shares({ temperature: 1e-300 }, branches(0.3, 0.4, 0.1), 50)), ['other']);
});

/** A node of a tree of its own for a policy to score. */
const nodeOf = (search: Search, text: string): SearchNode =>
  [...search.tree.nodes.values()].find((node) => node.text === text)!;

test('PUCT scores as computed by hand, and the highest is expanded', () => {
  const dialogues = [
    say(1, ['first', -1], 'b', 'c'),
    say(1, ['first', -1], 'b', 'c'),
    say(null, ['first', -1], 'b', 'c'),
    say(0.5, ['other', -1 + Math.log(3)], 'b', 'c'),
  ];
  const search = searched({ policy: 'puct', exploration: 2 }, ...dialogues);
  const policy = policies.puct({ ...paper, exploration: 2 });
  const score = (text: string) => policy.score(nodeOf(search, text), search.tree);
  const isNear = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-12, `${a} is not ${b}`);
  // Priors 1/4 and 3/4, four roll-outs through the root, three and one through the two.
  isNear(score('first'), 1 + (2 * 0.25 * 2) / 4);
  isNear(score('other'), 0.5 + (2 * 0.75 * 2) / 2);
  assert.is(next(search), 'other');
  assert.is(next(searched({ policy: 'puct', exploration: 0 }, ...dialogues)), 'first');
});

test('entropy is the mean surprise of the children, and draws by it', () => {
  const dialogues = [
    say(0, 'first', ['b', -0.5], 'c'),
    say(0, 'first', ['longer', -1.5], 'c'),
    say(9, 'other', ['b', -0.25], 'c'),
  ];
  const search = searched({ policy: 'entropy' }, ...dialogues);
  const policy = policies.entropy(paper);
  assert.is(policy.score(nodeOf(search, 'first'), search.tree), 1);
  assert.is(policy.score(nodeOf(search, 'other'), search.tree), 0.25);
  const drawn = shares({ policy: 'entropy', temperature: 0.5 }, dialogues);
  assert.ok(Math.abs(drawn.first! - 1 / (1 + Math.exp(-1.5))) < tolerance, `${drawn.first}`);
});

const distance = (a: string, b: string) => editDistance(a, b) / Math.max(a.length, b.length);

/** What the rules say of a tree, without anything that the search keeps. */
function candidatesOf({ tree }: Search, selected: readonly string[], minDistance: number): SearchNode[] {
  const heightOf = (node: SearchNode): number =>
    Math.max(-1, ...node.children.map((child) => heightOf(tree.nodes.get(child)!))) + 1;
  return [...tree.nodes.values()].filter(
    (node) =>
      node.parent !== null &&
      heightOf(node) >= 2 &&
      node.ends.some(({ reward }) => reward !== null) &&
      !node.expanded &&
      selected.every((text) => distance(text, node.text) >= minDistance),
  );
}

for (const policy of ['softmax', 'puct', 'entropy'] as const) {
  test(`${policy}: in random worlds every expanded node was among the best candidates`, () => {
    let rootAgain = 0;
    let filtered = 0;
    for (let seed = 0; seed < 20; seed++) {
      const selected: string[] = [];
      const { score } = policies[policy](paper);
      const ask = (search: Search) => {
        const { tree } = search;
        const best = candidatesOf(search, selected, paper.minDistance)
          .sort((a, b) => score(b, tree) - score(a, tree))
          .slice(0, policy === 'puct' ? 1 : 3);
        const expansion = search.ask();
        if (expansion === null) return null;
        const node = tree.nodes.get(expansion.node)!;
        assert.ok(node.expanded);
        if (node !== tree.root) selected.push(node.text);
        else if (expansion.index > 0) rootAgain++;
        assert.ok(best.length === 0 ? node === tree.root : best.includes(node), `seed ${seed}: ${node.id}`);
        return expansion;
      };
      const { search, expansions } = live(seed, { policy, candidates: 3 }, { ask });
      assert.is(expansions.length, 8);
      const nodes = [...search.tree.nodes.values()];
      assert.equal(
        nodes.filter(({ expanded }) => expanded).map(({ id }) => id),
        nodes.filter(({ id }) => expansions.some(({ node }) => node === id)).map(({ id }) => id),
      );
      for (const [i, a] of selected.entries())
        for (const b of selected.slice(0, i)) assert.ok(distance(a, b) >= paper.minDistance);
      filtered += nodes.filter(({ isFiltered }) => isFiltered).length;
    }
    // The worlds have what is tested.
    assert.ok(rootAgain > 5 && filtered > 25, `${rootAgain} ${filtered}`);
  });
}

test.run();
