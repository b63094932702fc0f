// Worlds in which what is said and what it earns follows from ids and a seed, to search in without a model.
import type { NodeId, TaskId } from '../../src/domain/ids.ts';
import { childId, rootId } from '../../src/domain/ids.ts';
import { createRng } from '../../src/domain/rng.ts';
import { type Expansion, Search, type SearchConfig } from '../../src/search/index.ts';

export const root = rootId('toy', 'train-00000' as TaskId);

export const config: SearchConfig = {
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

const words = ['red', 'green', 'blue', 'the answer is', 'I think', 'who', 'maybe', 'film', 'town', 'yes'];

export interface World {
  readonly seed: number;
  /** Most turns of a dialogue. */
  readonly turns: number;
  /** Words of a turn. */
  readonly length: number;
  /** Share of roll-outs that fail. */
  readonly failures: number;
}

/** One roll-out as it went. */
export interface Told {
  readonly rollout: number;
  readonly leaf: NodeId;
  readonly reward: number | null;
}

export interface Searched {
  readonly search: Search;
  readonly expansions: readonly Expansion[];
  readonly told: readonly Told[];
  /** Every turn that was said, and where it was placed. */
  readonly placed: readonly { readonly id: NodeId; readonly parent: NodeId; readonly into: NodeId }[];
}

/** Holds the roll-outs of one expansion turn by turn, in step. */
export function rollOut(search: Search, { node, rollouts }: Expansion, world: World) {
  const depthOf = (id: NodeId) => search.tree.nodes.get(id)!.depth;
  const placed: { id: NodeId; parent: NodeId; into: NodeId }[] = [];
  const told: Told[] = [];
  let open = rollouts.map((rollout) => ({ rollout, at: node }));
  while (open.length > 0) {
    open = open.flatMap(({ rollout, at }) => {
      const id = childId(at, rollout);
      const rng = createRng(`${world.seed} ${id}`);
      const text = Array.from({ length: 1 + rng.int(world.length) }, () => rng.pick(words)).join(' ');
      const into = search.place({ id, parent: at, text, meanLogprob: -rng.next() });
      placed.push({ id, parent: at, into });
      const end = createRng(`${world.seed} end ${rollout} ${depthOf(into)}`);
      if (depthOf(into) < world.turns && end.next() < 0.8) return [{ rollout, at: into }];
      told.push({ rollout, leaf: into, reward: end.next() < world.failures ? null : end.next() });
      return [];
    });
  }
  return { placed, told };
}

/** A whole search; `order` says in which order the roll-outs of an expansion are told. */
export function searchWorld(
  world: World,
  overrides: Partial<SearchConfig> = {},
  order: (told: readonly Told[]) => readonly Told[] = (told) => told,
): Searched {
  const search = new Search(root, { ...config, ...overrides }, createRng(world.seed));
  const all = {
    expansions: [] as Expansion[],
    told: [] as Told[],
    placed: [] as Searched['placed'][number][],
  };
  for (let expansion = search.ask(); expansion !== null; expansion = search.ask()) {
    const { placed, told } = rollOut(search, expansion, world);
    for (const { rollout, leaf, reward } of order(told)) search.tell(rollout, leaf, reward);
    all.expansions.push(expansion);
    all.told.push(...told);
    all.placed.push(...placed);
  }
  return { search, ...all };
}
