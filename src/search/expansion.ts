// Which node is expanded next: who may be, who is too much like one that was, and who is chosen.
import type { NodeId } from '../domain/ids.ts';
import type { Rng } from '../domain/rng.ts';
import type { SearchConfig } from './config.ts';
import { isNearer } from './distance.ts';
import type { SearchNode, SearchTree } from './tree.ts';

/** A node that may be expanded. */
export interface Candidate {
  readonly node: SearchNode;
  readonly value: number;
}

/** Chooses one of the candidates, the best value first; there is one or more. */
export type ExpansionPolicy = (
  candidates: readonly Candidate[],
  tree: SearchTree,
  config: SearchConfig,
  rng: Rng,
) => Candidate;

/** Chooses the nodes of a search, one after the other, and remembers which were chosen. */
export class Expander {
  readonly #config: SearchConfig;
  readonly #expanded: SearchNode[] = [];
  readonly #excluded = new Set<NodeId>();

  constructor(config: SearchConfig) {
    this.#config = config;
  }

  /**
   * The root first. Then, of the nodes that are neither leaves nor the level above, were never chosen, and have a value, the
   * policy's choice of the best; a node nearer than `minDistance` to one that was chosen is excluded for good. With nobody
   * left, the root again.
   */
  next(tree: SearchTree, rng: Rng): NodeId {
    const { candidates: most, policy } = this.#config;
    if (this.#expanded.length === 0) return this.#choose(tree.nodes.get(tree.root)!);
    const candidates = [...tree.nodes.values()]
      .flatMap((node) => {
        const value = tree.valueOf(node.id);
        return value !== null && this.#isEligible(node) ? [{ node, value }] : [];
      })
      .sort((one, other) => other.value - one.value)
      .slice(0, most);
    if (candidates.length === 0) return this.#choose(tree.nodes.get(tree.root)!);
    return this.#choose(policies[policy](candidates, tree, this.#config, rng).node);
  }

  #isEligible(node: SearchNode): boolean {
    if (node.height < 2 || node.parent === null || this.#excluded.has(node.id)) return false;
    const isAlike = this.#expanded.some(
      ({ parent, text }) => parent !== null && isNearer(text, node.text, this.#config.minDistance),
    );
    if (isAlike) this.#excluded.add(node.id);
    return !isAlike;
  }

  #choose(node: SearchNode): NodeId {
    this.#expanded.push(node);
    this.#excluded.add(node.id);
    return node.id;
  }
}

const policies: Readonly<Record<SearchConfig['policy'], ExpansionPolicy>> = {
  /** Draws by softmax(value / temperature). */
  softmax: (candidates, _tree, { temperature }, rng) =>
    draw(
      candidates,
      candidates.map(({ value }) => value / temperature),
      rng,
    ),

  /**
   * The best value + c · P · √N(parent) / (1 + N), with N a node's visits and P its share in a softmax over its siblings'
   * mean log-probabilities (PUCT in the form of Silver et al., Nature 550, 2017).
   */
  puct: (candidates, tree, { exploration }) => {
    const scores = candidates.map(({ node, value }) => {
      const parent = tree.nodes.get(node.parent!)!;
      const siblings = softmax(parent.children.map((id) => tree.nodes.get(id)!.meanLogprob));
      const prior = siblings[parent.children.indexOf(node.id)]!;
      return value + (exploration * prior * Math.sqrt(parent.visits)) / (1 + node.visits);
    });
    return candidates[scores.indexOf(Math.max(...scores))]!;
  },

  /**
   * Draws by softmax(H / temperature), H the mean surprise of what was said after the node, nats per token: an estimate of
   * the policy's entropy there (after AT²PO, arXiv 2601.04767).
   */
  entropy: (candidates, tree, { temperature }, rng) =>
    draw(
      candidates,
      candidates.map(({ node: { children } }) => {
        const logprobs = children.map((id) => tree.nodes.get(id)!.meanLogprob);
        return -logprobs.reduce((sum, logprob) => sum + logprob, 0) / children.length / temperature;
      }),
      rng,
    ),
};

function softmax(logits: readonly number[]): number[] {
  const most = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - most));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

function draw<Item>(items: readonly Item[], logits: readonly number[], rng: Rng): Item {
  let left = rng.next();
  for (const [index, share] of softmax(logits).entries()) {
    left -= share;
    if (left < 0) return items[index]!;
  }
  return items.at(-1)!;
}
