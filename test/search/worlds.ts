// Worlds to search in: small ones of hash functions, and dialogues written out.
import { childId, type NodeId, rootId, type TaskId } from '../../src/domain/ids.ts';
import { createRng, hash32, type Rng } from '../../src/domain/rng.ts';
import { type Expansion, type RolloutEnd, Search, type SearchConfig } from '../../src/search/index.ts';

export const root = rootId('search', 'task' as TaskId);

export const paper: SearchConfig = {
  expansions: 8,
  rolloutsPerExpansion: 3,
  minDistance: 0.25,
  mergeBelow: 0.1,
  candidates: 10,
  temperature: 1,
  policy: 'softmax',
  exploration: 1,
  backup: 'mean-of-children',
};

/** A search's whole life in a world. */
export interface Life {
  readonly search: Search;
  readonly expansions: readonly Expansion[];
  readonly ends: readonly RolloutEnd[];
  /** Turns that were placed, and merged or not. */
  readonly placed: readonly { readonly text: string; readonly parent: NodeId; readonly node: NodeId }[];
}

/**
 * A world where everything follows from ids: a text is one of six, with up to four letters changed; a dialogue ends with one
 * turn in five, at the latest after seven; rewards are tenths from −1 to 2, and one roll-out in ten fails on its way.
 */
export function live(
  seed: number,
  change: Partial<SearchConfig> = {},
  {
    order = (ends) => ends,
    ask = (search) => search.ask(),
  }: { order?: (ends: RolloutEnd[]) => RolloutEnd[]; ask?: (search: Search) => Expansion | null } = {},
): Life {
  const search = new Search(root, { ...paper, ...change }, createRng(seed));
  const share = (label: string) => hash32(`${seed} ${label}`) / 2 ** 32;
  const expansions: Expansion[] = [];
  const allEnds: RolloutEnd[] = [];
  const placed: Life['placed'][number][] = [];
  for (;;) {
    const expansion = ask(search);
    if (expansion === null) return { search, expansions, ends: allEnds, placed };
    expansions.push(expansion);
    const ends: RolloutEnd[] = [];
    let walks = expansion.rollouts.map((rollout) => ({ rollout, node: expansion.node }));
    while (walks.length > 0) {
      walks = walks.flatMap(({ rollout, node: parent }) => {
        const id = childId(parent, rollout);
        const text = textOf(createRng(seed).split(id));
        const node = search.place({ id, parent, text, meanLogprob: -2 * share(`logprob ${id}`) });
        placed.push({ text, parent, node });
        const fails = share(`fails ${rollout} ${node}`) < 0.03;
        const { depth } = search.tree.nodes.get(node)!;
        if (!fails && depth < 7 && share(`ends ${rollout} ${node}`) > 0.2) return [{ rollout, node }];
        const reward = fails ? null : Math.round(share(`reward ${rollout} ${node}`) * 30 - 10) / 10;
        ends.push({ rollout, leaf: node, reward });
        return [];
      });
    }
    for (const { rollout, leaf, reward } of order(ends)) search.tell(rollout, leaf, reward);
    allEnds.push(...ends);
  }
}

const themes = [
  'the capital of france',
  'her brother is a baker',
  'i do not know that yet',
  'answer: it was in 1969',
  'please say more of him',
  'two and two, so four.',
];

function textOf(rng: Rng): string {
  const letters = [...rng.pick(themes)];
  for (let changes = rng.int(5); changes > 0; changes--)
    letters[rng.int(letters.length)] = rng.pick([...'xyz']);
  return letters.join('');
}

/** A dialogue from where it begins: its turns, each with a mean log-probability or with −1, and its reward. */
export interface Written {
  readonly turns: readonly (string | readonly [text: string, meanLogprob: number])[];
  readonly reward: number | null;
}

/** Asks, and holds these dialogues one after the other; returns what was asked. */
export function hold(search: Search, ...dialogues: readonly Written[]): Expansion {
  const expansion = search.ask()!;
  for (const [index, { turns, reward }] of dialogues.entries()) {
    const rollout = expansion.rollouts[index]!;
    let node = expansion.node;
    for (const turn of turns) {
      const [text, meanLogprob] = typeof turn === 'string' ? ([turn, -1] as const) : turn;
      node = search.place({ id: childId(node, rollout), parent: node, text, meanLogprob });
    }
    search.tell(rollout, node, reward);
  }
  return expansion;
}

/** The search that holds these dialogues at its first expansion. */
export function searched(change: Partial<SearchConfig>, ...dialogues: readonly Written[]): Search {
  const config = { ...paper, rolloutsPerExpansion: dialogues.length, ...change };
  const search = new Search(root, config, createRng(1));
  hold(search, ...dialogues);
  return search;
}
