import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { NodeId } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import type { Search, SearchConfig } from '../../src/search/index.ts';
import { live, root, searched } from './worlds.ts';

const kinds: readonly SearchConfig['backup'][] = ['mean-of-children', 'mean-of-rollouts'];

/** Value and visits of each node, by its text; the root has an empty one. */
const figures = ({ tree }: Search) =>
  Object.fromEntries([...tree.nodes.values()].map(({ text, value, visits }) => [text, [value, visits]]));

/** `first` is where three dialogues go on and two end; all that is said after `mute` failed. */
const written = (backup: SearchConfig['backup']) =>
  searched(
    { backup },
    { turns: ['first', 'one'], reward: 1 },
    { turns: ['first', 'one'], reward: 0.5 },
    { turns: ['first', 'other'], reward: 0 },
    { turns: ['first'], reward: 3 },
    { turns: ['first'], reward: 1.5 },
    { turns: ['mute', 'nothing'], reward: null },
    { turns: ['second'], reward: -1 },
    { turns: ['second'], reward: null },
  );

test('mean-of-children is the hand-computed one', () => {
  assert.equal(figures(written('mean-of-children')), {
    // (1 − 1) / 2
    '': [0, 8],
    // (0.75 + 0 + (3 + 1.5) / 2) / 3
    first: [1, 5],
    one: [0.75, 2],
    other: [0, 1],
    mute: [null, 1],
    nothing: [null, 1],
    second: [-1, 2],
  });
});

test('mean-of-rollouts is the hand-computed one', () => {
  assert.equal(figures(written('mean-of-rollouts')), {
    // (1 + 0.5 + 0 + 3 + 1.5 − 1) / 6
    '': [5 / 6, 8],
    // (1 + 0.5 + 0 + 3 + 1.5) / 5
    first: [1.2, 5],
    one: [0.75, 2],
    other: [0, 1],
    mute: [null, 1],
    nothing: [null, 1],
    second: [-1, 2],
  });
});

for (const backup of kinds) {
  test(`${backup}: what was told in another order is the same to the last bit`, () => {
    for (let seed = 0; seed < 20; seed++) {
      const first = live(seed, { backup, rolloutsPerExpansion: 5 });
      const rng = createRng(`orders ${seed}`);
      const again = live(seed, { backup, rolloutsPerExpansion: 5 }, { order: (ends) => rng.shuffle(ends) });
      assert.equal([...again.search.tree.nodes], [...first.search.tree.nodes]);
      assert.equal(again.expansions, first.expansions);
    }
  });

  test(`${backup}: values are between the least and the greatest reward`, () => {
    for (let seed = 0; seed < 20; seed++) {
      const { search, ends } = live(seed, { backup });
      for (const { id, value } of search.tree.nodes.values()) {
        const rewards = ends.filter(({ leaf }) => isAtOrBelow(leaf, id)).map(({ reward }) => reward);
        const known = rewards.filter((reward) => reward !== null);
        if (known.length === 0) assert.is(value, null);
        else {
          // The mean of three tenths is a little more than a tenth.
          assert.ok(value! >= Math.min(...known) - 1e-12 && value! <= Math.max(...known) + 1e-12);
        }
      }
    }
  });
}

test('a node is visited by each roll-out that came through it, the failed ones included', () => {
  for (let seed = 0; seed < 20; seed++) {
    const { search, ends } = live(seed);
    const { nodes } = search.tree;
    assert.is(search.tree.root.visits, 24);
    assert.ok(search.tree.root === nodes.get(root));
    for (const node of nodes.values()) {
      const endedHere = ends.filter(({ leaf }) => leaf === node.id).length;
      const below = node.children.reduce((sum, child) => sum + nodes.get(child)!.visits, 0);
      assert.is(node.visits, below + endedHere);
      assert.is(node.ends.length, node.visits);
      assert.equal(
        node.ends.map(({ rollout }) => rollout),
        node.ends.map(({ rollout }) => rollout).toSorted((a, b) => a - b),
      );
    }
  }
});

test('the mean over roll-outs agrees with a plain sum over what was told', () => {
  for (let seed = 0; seed < 20; seed++) {
    const { search, ends } = live(seed, { backup: 'mean-of-rollouts' });
    for (const { id, value } of search.tree.nodes.values()) {
      const rewards = ends.flatMap(({ leaf, reward }) =>
        reward !== null && isAtOrBelow(leaf, id) ? [reward] : [],
      );
      if (value === null) assert.is(rewards.length, 0);
      else
        assert.ok(
          Math.abs(rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length - value) < 1e-12,
        );
    }
  }
});

/** By the ids themselves: those of a node begin with its parent's. */
const isAtOrBelow = (node: NodeId, ancestor: NodeId) => node === ancestor || node.startsWith(`${ancestor}.`);

test.run();
