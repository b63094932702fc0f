// Which node is expanded next: who may be, who is different enough, and the policies that choose (docs/method.md §5, §12).
import type { NodeId } from '../domain/ids.ts';
import type { Rng } from '../domain/rng.ts';
import type { SearchConfig } from './config.ts';
import { isNearer } from './distance.ts';
import type { GrowingNode, GrowingTree, SearchNode, SearchTree } from './tree.ts';

export interface Candidate<Node extends SearchNode = SearchNode> {
  readonly node: Node;
  readonly score: number;
}

/** How a node is chosen among those that may be expanded. */
export interface ExpansionPolicy {
  /** How good a candidate is; the `candidates` best ones are chosen from. */
  score(node: SearchNode, tree: SearchTree): number;
  /** One of them; they come best first, equals in the order in which they were placed. */
  choose<C extends Candidate>(best: readonly C[], rng: Rng): C;
}

export const policies: Readonly<Record<SearchConfig['policy'], (config: SearchConfig) => ExpansionPolicy>> = {
  /** P(n) ∝ exp(V(n) / temperature): the paper's. */
  softmax: ({ temperature }) => ({
    score: ({ value }) => value!,
    choose: (best, rng) => draw(best, temperature, rng),
  }),

  /**
   * The highest V(n) + c · P(n) · √N(parent) / (1 + N(n)), with N the roll-outs through a node, the failed ones included, and
   * the prior P(n) = exp ℓ(n) / Σ exp ℓ(m) over n and its siblings m, ℓ the mean log-probability of a turn's tokens. The
   * formula is AlphaZero's (Silver et al., 2017, arXiv 1712.01815, after Rosin, 2011). There N counts selections; here no node
   * is selected twice, and what is known of one comes from the roll-outs through it.
   */
  puct: ({ exploration }) => ({
    score: (node, tree) => {
      const parent = tree.nodes.get(node.parent!)!;
      const logprobs = parent.children.map((id) => tree.nodes.get(id)!.meanLogprob);
      const prior = softmax(logprobs)[parent.children.indexOf(node.id)]!;
      return node.value! + (exploration * prior * Math.sqrt(parent.visits)) / (1 + node.visits);
    },
    choose: ([first]) => first!,
  }),

  /**
   * P(n) ∝ exp(H(n) / temperature). H(n), in nats per token, is the mean over the node's children of −ℓ: an estimate of the
   * entropy with which the policy goes on from here. After AT²PO (arXiv 2601.04767), which takes a node's own turn and the
   * highest instead of a draw.
   */
  entropy: ({ temperature }) => ({
    score: ({ children }, { nodes }) =>
      children.reduce((sum, id) => sum - nodes.get(id)!.meanLogprob, 0) / children.length,
    choose: (best, rng) => draw(best, temperature, rng),
  }),
};

/** One of the candidates, each with the share softmax(score / temperature). */
function draw<C extends Candidate>(candidates: readonly C[], temperature: number, rng: Rng): C {
  const shares = softmax(
    candidates.map(({ score }) => score),
    temperature,
  );
  let left = rng.next();
  for (const [index, candidate] of candidates.entries()) {
    left -= shares[index]!;
    if (left < 0) return candidate;
  }
  // Rounded shares may come to a little less than 1.
  return candidates.at(-1)!;
}

function softmax(scores: readonly number[], temperature = 1): number[] {
  const highest = Math.max(...scores);
  const weights = scores.map((score) => Math.exp((score - highest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

/**
 * Neither a leaf nor on the level above the leaves, on the longest branch below it; passed by a roll-out that has a reward;
 * not expanded before. The root is no candidate: it is what is expanded first, and when there is no candidate.
 */
const mayBeExpanded = ({ height, value, expanded, isFiltered }: SearchNode): boolean =>
  height >= 2 && value !== null && !expanded && !isFiltered;

/** Selects the nodes of one search, one after the other. */
export class Selector {
  readonly #config: SearchConfig;
  readonly #policy: ExpansionPolicy;
  /** Texts of the nodes selected so far; the root has none. */
  readonly #selected: string[] = [];
  /** How many of these a node has been compared with, and was far enough from. */
  readonly #compared = new Map<NodeId, number>();

  constructor(config: SearchConfig) {
    this.#config = config;
    this.#policy = policies[config.policy](config);
  }

  /** The next node, marked as expanded. Candidates that are too near to earlier ones are marked as filtered. */
  next(tree: GrowingTree, rng: Rng): GrowingNode {
    const node = this.#choose(tree, rng) ?? tree.root;
    node.expanded = true;
    if (node !== tree.root) this.#selected.push(node.text);
    return node;
  }

  #choose(tree: GrowingTree, rng: Rng): GrowingNode | null {
    const candidates = [...tree.nodes.values()].filter(mayBeExpanded);
    for (const node of candidates) node.isFiltered = this.#isNearSelected(node);
    const best = candidates
      .filter((node) => !node.isFiltered)
      .map((node) => ({ node, score: this.#policy.score(node, tree) }))
      .sort((a, b) => b.score - a.score)
      .slice(0, this.#config.candidates);
    return best.length === 0 ? null : this.#policy.choose(best, rng).node;
  }

  #isNearSelected({ id, text }: SearchNode): boolean {
    const news = this.#selected.slice(this.#compared.get(id));
    this.#compared.set(id, this.#selected.length);
    return news.some((selected) => isNearer(text, selected, this.#config.minDistance));
  }
}
