// The search as a whole, in toy worlds: golden trees, and what holds in every tree.
import fs from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NodeId } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { distanceBelow } from '../../src/search/distance.ts';
import { pairsOf, Search, type SearchConfig, type SearchNode } from '../../src/search/index.ts';
import { config, root, type Searched, searchWorld, type World } from './toy.ts';

const worlds: World[] = Array.from({ length: 60 }, (_, seed) => ({
  seed,
  turns: 1 + (seed % 6),
  length: 1 + (seed % 4),
  failures: (seed % 3) / 5,
}));
const variants: Partial<SearchConfig>[] = [
  {},
  { backup: 'mean-of-rollouts' },
  { policy: 'puct' },
  { policy: 'entropy', mergeBelow: 0.5 },
  { expansions: 3, rolloutsPerExpansion: 5, minDistance: 0.6 },
];

const searches = worlds.flatMap((world) =>
  variants.map((variant) => ({ world, variant, searched: searchWorld(world, variant) })),
);

function forAll(check: (searched: Searched, used: SearchConfig) => void): void {
  for (const { searched, variant } of searches) check(searched, { ...config, ...variant });
}

/** All that a tree says of its nodes, as plain data. */
const plain = ({ search: { tree } }: Searched) =>
  [...tree.nodes.values()].map(({ id, text, visits, height, ended }) => ({
    id,
    text,
    visits,
    height,
    ended: [...ended].sort(([one], [other]) => one - other),
    value: tree.valueOf(id),
  }));
const golden = new URL('golden/trees.json', import.meta.url);

test('trees are those of the golden file', () => {
  const trees = [
    { seed: 3, turns: 4, length: 2, failures: 0.2 },
    { seed: 5, turns: 3, length: 1, failures: 0 },
  ].flatMap((world) =>
    variants.map((changes) => {
      const variant = { ...changes, expansions: 4 };
      const searched = searchWorld(world, variant);
      const expanded = searched.expansions.map(({ node }) => node);
      const { pairs } = pairsOf(searched.search.tree, { from: 'all', thetaFilter: 0.4, thetaDiff: 0.2 });
      return { world, variant, expanded, nodes: plain(searched), pairs };
    }),
  );
  if (process.env.UPDATE_GOLDEN === '1') fs.writeFileSync(golden, `${JSON.stringify(trees)}\n`);
  assert.equal(JSON.parse(JSON.stringify(trees)), JSON.parse(fs.readFileSync(golden, 'utf8')));
});

test('visits are roll-outs, and every roll-out is asked for and told once', () => {
  forAll(({ search: { tree }, told, expansions }, { expansions: most, rolloutsPerExpansion }) => {
    assert.is(expansions.length, most);
    assert.equal(
      told.map(({ rollout }) => rollout).sort((a, b) => a - b),
      Array.from({ length: most * rolloutsPerExpansion }, (_, rollout) => rollout),
    );
    assert.equal(
      expansions.flatMap(({ rollouts }) => rollouts),
      Array.from({ length: most * rolloutsPerExpansion }, (_, rollout) => rollout),
    );
    assert.is(tree.nodes.get(root)!.visits, told.length);
    for (const node of tree.nodes.values()) {
      const here = told.filter(({ leaf }) => leaf === node.id).length;
      const below = node.children.reduce((sum, child) => sum + tree.nodes.get(child)!.visits, 0);
      assert.is(node.visits, here + below, node.id);
    }
  });
});

test('values lie within the rewards, and are the means that the backup names', () => {
  forAll(({ search: { tree }, told }, { backup }) => {
    const rewardsThrough = (id: NodeId): number[] => [
      ...told.flatMap(({ leaf, reward }) => (leaf === id && reward !== null ? [reward] : [])),
      ...tree.nodes.get(id)!.children.flatMap(rewardsThrough),
    ];
    const meanOf = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    for (const { id, children } of tree.nodes.values()) {
      const value = tree.valueOf(id);
      const through = rewardsThrough(id);
      assert.is(value === null, through.length === 0);
      if (value === null) continue;
      assert.ok(value >= Math.min(...through) - 1e-12 && value <= Math.max(...through) + 1e-12);
      const ended = told.flatMap(({ leaf, reward }) => (leaf === id && reward !== null ? [reward] : []));
      const below = children.flatMap((child) => tree.valueOf(child) ?? []);
      const expected =
        backup === 'mean-of-rollouts'
          ? meanOf(through)
          : meanOf(ended.length > 0 ? [meanOf(ended), ...below] : below);
      assert.ok(Math.abs(value - expected) < 1e-12);
    }
  });
});

test('the same seed gives the same tree, whatever the order in which its rewards were told', () => {
  for (const { world, variant, searched } of searches) {
    const other = searchWorld(world, variant, (told) => createRng(world.seed).shuffle([...told].reverse()));
    assert.equal(plain(other), plain(searched));
    assert.equal(
      other.expansions.map(({ node }) => node),
      searched.expansions.map(({ node }) => node),
    );
  }
});

test('merging loses no child: every turn stands in the tree or is nearly one of its siblings', () => {
  let merged = 0;
  forAll(({ search: { tree }, placed }, { mergeBelow }) => {
    for (const { id, parent, into } of placed) {
      const node = tree.nodes.get(into)!;
      assert.is(node.parent, parent);
      assert.ok(tree.nodes.get(parent)!.children.includes(into));
      if (id === into) continue;
      merged++;
      assert.not.ok(tree.nodes.has(id));
    }
    assert.is(tree.nodes.size - 1, placed.filter(({ id, into }) => id === into).length);
    for (const { children } of tree.nodes.values()) {
      for (const [index, child] of children.entries()) {
        for (const later of children.slice(index + 1)) {
          const [one, other] = [tree.nodes.get(child)!, tree.nodes.get(later)!];
          assert.is(distanceBelow(one.text, other.text, mergeBelow), null);
        }
      }
    }
  });
  assert.ok(merged > 500, `${merged}`);
});

test('what is expanded is the root or a node two levels above the end, no two of them alike', () => {
  let inner = 0;
  let again = 0;
  forAll(({ search: { tree }, expansions }, { minDistance }) => {
    assert.is(expansions[0]!.node, root);
    const chosen: SearchNode[] = [];
    for (const { node: id } of expansions) {
      const node = tree.nodes.get(id)!;
      if (id === root) again++;
      else {
        inner++;
        assert.ok(node.height >= 2, `${node.height}`);
        assert.ok(tree.valueOf(id) !== null);
        for (const earlier of chosen) {
          assert.is.not(earlier.id, id);
          assert.is(distanceBelow(earlier.text, node.text, minDistance), null);
        }
        chosen.push(node);
      }
    }
  });
  assert.ok(inner > 500 && again > 400, `${inner} ${again}`);
});

test('a node alike to an expanded one stays out, and its children still form pairs', () => {
  const search = new Search(root, { ...config, expansions: 2, rolloutsPerExpansion: 2 }, createRng(1));
  const at = (id: string) => id as NodeId;
  const grow = (id: string, parent: NodeId, text: string) =>
    search.place({ id: at(id), parent, text, meanLogprob: -1 });
  assert.equal(search.ask(), { index: 0, node: root, rollouts: [0, 1] });
  grow('a', root, 'who directed the film');
  grow('a.0', at('a'), 'ann');
  grow('a.0.0', at('a.0'), 'rome');
  grow('b', root, 'red');
  grow('b.1', at('b'), 'the director is bob');
  grow('b.1.1', at('b.1'), 'paris');
  assert.throws(() => search.ask(), /2 roll-outs have not been told/);
  search.tell(0, at('a.0.0'), 0.1);
  assert.throws(() => search.tell(0, at('a.0.0'), 0.1), /Roll-out 0 is not under way/);
  search.tell(1, at('b.1.1'), 0.9);
  const second = search.ask()!;
  assert.ok(['a', 'b'].includes(second.node));
  assert.throws(() => grow('a', root, 'something else'), /is in its tree already/);
  assert.throws(() => grow('z.0', at('z'), 'x'), /has no parent z/);
  assert.throws(() => search.tell(2, at('z'), 1), /z is not in its tree/);
});

test('the policies choose as they say', () => {
  // Below the root: `low` is worth little and uncertain, `high` worth much and sure, `rare` likely and seldom visited.
  const grown = (overrides: Partial<SearchConfig>, seed = 1) => {
    const search = new Search(root, { ...config, rolloutsPerExpansion: 3, ...overrides }, createRng(seed));
    search.ask();
    const texts = { low: 'who is it', high: 'the answer', rare: 'maybe blue' };
    const reward = { low: 0.1, high: 0.9, rare: 0.5 };
    const surprise = { low: 5, high: 0.1, rare: 0.2 };
    const prior = { low: -9, high: -9, rare: -0.01 };
    for (const [index, name] of (['low', 'high', 'rare'] as const).entries()) {
      const id = (suffix: string) => `${name}${suffix}` as NodeId;
      search.place({ id: id(''), parent: root, text: texts[name], meanLogprob: prior[name] });
      search.place({ id: id('.0'), parent: id(''), text: `${name} one`, meanLogprob: -surprise[name] });
      search.place({ id: id('.0.0'), parent: id('.0'), text: `${name} two`, meanLogprob: -1 });
      search.tell(index, id('.0.0'), reward[name]);
    }
    return search;
  };
  const chosen = (overrides: Partial<SearchConfig>) => {
    const counts = { low: 0, high: 0, rare: 0 };
    for (let seed = 0; seed < 200; seed++) {
      counts[grown(overrides, seed).ask()!.node as 'low' | 'high' | 'rare']++;
    }
    return counts;
  };
  assert.equal(chosen({ temperature: 0.01 }), { low: 0, high: 200, rare: 0 });
  const warm = chosen({});
  // softmax(0.1, 0.9, 0.5) = 0.216, 0.480, 0.322
  assert.ok(
    Math.abs(warm.low - 43) < 20 && Math.abs(warm.high - 96) < 25 && Math.abs(warm.rare - 64) < 25,
    `${JSON.stringify(warm)}`,
  );
  assert.equal(chosen({ candidates: 1 }), { low: 0, high: 200, rare: 0 });
  assert.equal(chosen({ policy: 'entropy', temperature: 0.01 }), { low: 200, high: 0, rare: 0 });
  assert.equal(chosen({ policy: 'puct', exploration: 0 }), { low: 0, high: 200, rare: 0 });
  // 0.5 + c · 0.9998 · √3 / 2 against 0.9 + nearly nothing: c above 0.462.
  assert.equal(chosen({ policy: 'puct', exploration: 0.47 }), { low: 0, high: 0, rare: 200 });
  assert.equal(chosen({ policy: 'puct', exploration: 0.45 }), { low: 0, high: 200, rare: 0 });
});

test.run();
