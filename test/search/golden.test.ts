// Searches of toy worlds, node for node, as they were when they were last looked at. UPDATE_GOLDEN=1 writes them anew: look at
// what changed before committing it.
import fs from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { pairsOf, type SearchConfig } from '../../src/search/index.ts';
import { live } from './worlds.ts';

const cases: readonly Pick<SearchConfig, 'policy' | 'backup'>[] = [
  { policy: 'softmax', backup: 'mean-of-children' },
  { policy: 'puct', backup: 'mean-of-rollouts' },
  { policy: 'entropy', backup: 'mean-of-children' },
];

for (const { policy, backup } of cases) {
  test(`a search by ${policy} with ${backup} grows the tree that it always has`, () => {
    const { search, expansions } = live(7, { policy, backup, expansions: 4, rolloutsPerExpansion: 2 });
    const thresholds = { thetaFilter: 0.4, thetaDiff: 0.2 };
    const lines = [
      ...expansions,
      ...[...search.tree.nodes.values()].map(({ ends, ...node }) => ({ ...node, ends: ends.map(endOf) })),
      pairsOf(search.tree, { ...thresholds, pairs: 'all' }),
      pairsOf(search.tree, { ...thresholds, pairs: 'extremes' }),
    ];
    const text = `[\n${lines.map((line) => JSON.stringify(line)).join(',\n')}\n]\n`;
    const golden = new URL(`golden/${policy}.json`, import.meta.url);
    if (process.env.UPDATE_GOLDEN) fs.writeFileSync(golden, text);
    assert.is(text, fs.readFileSync(golden, 'utf8'));
  });
}

const endOf = ({ rollout, reward }: { rollout: number; reward: number | null }) => [rollout, reward];

test.run();
