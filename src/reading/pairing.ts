// Preference pairs: the searched trees of a phase, read back from its events, and which pairs of turns are chosen of them.
import { type ConversationTree, type LoggedTree, pathTo } from '../domain/conversation-tree.ts';
import { OptimaError } from '../domain/errors.ts';
import type { DialogueId, NodeId } from '../domain/ids.ts';
import { mean, standardDeviation } from '../domain/metrics.ts';
import type { Rng } from '../domain/rng.ts';
import { writtenOf } from '../domain/transcript.ts';
import type { PreferenceRecipe, Recipe } from '../recipe/schema.ts';
import type { AnswerParser } from '../scenario/types.ts';
import {
  type DroppedPairs,
  type Pair,
  pairsOf,
  Search,
  type SearchConfig,
  type SearchTree,
  valueTo,
} from '../search/index.ts';
import { type EdgeCasePolicy, edgeCasesOf } from './ranking.ts';

/** The recipe as one that trains by preference. */
export function preferenceOf(recipe: Recipe): PreferenceRecipe {
  if ('search' in recipe) return recipe;
  throw new Error(`Recipe ${recipe.recipe} does not train by preference.`);
}

/** What a recipe says of the search of one tree. */
export function searchConfigOf({ search }: PreferenceRecipe): SearchConfig {
  const { selectionTemperature: temperature, ...rest } = search;
  return { ...rest, temperature };
}

/** A tree's turns, and what they are worth. */
export interface ValuedTree {
  readonly conversation: ConversationTree;
  readonly tree: SearchTree;
}

/** A searched tree: as its search left it. */
export interface SearchedTree extends ValuedTree {
  readonly search: Search;
}

/**
 * The trees of a search phase, one after the other, as its explorers left them: every turn is placed, every reward told
 * and every expansion chosen again, from the phase's events alone. `rng` is the run's.
 */
export function* searchedTrees(
  trees: Iterable<LoggedTree>,
  config: SearchConfig,
  rng: Rng,
): Generator<SearchedTree> {
  for (const logged of trees) {
    const { conversation } = logged;
    const search = searchAgain(logged, config, rng);
    yield { conversation, search, tree: search.tree };
  }
}

/** A tree's search, made again from what the log says of its dialogues; of one under way as far as that goes. */
export function searchAgain(
  { conversation, events }: Pick<LoggedTree, 'conversation' | 'events'>,
  config: SearchConfig,
  rng: Rng,
): Search {
  const { root, dialogues } = conversation;
  const search = new Search(root, config, rng.split('search').split(root));
  const rollouts = new Map<DialogueId, number>();
  for (const event of events) {
    if (event.type === 'dialogue.opened') {
      if (rollouts.size % config.rolloutsPerExpansion === 0) search.ask();
      rollouts.set(event.dialogueId, rollouts.size);
    } else if (event.type === 'turn.taken') {
      const { id, parent, logprobs } = event.turn;
      const text = writtenOf(event.turn);
      const into = search.place({ id, parent, text, meanLogprob: mean(logprobs) });
      if (into !== id) {
        throw new OptimaError('run.corrupt', `Turn ${id} is as good as ${into}, but stands beside it.`);
      }
    } else if (event.type === 'trajectory.ranked') {
      const { dialogueId, reward, seats } = event;
      search.tell(rollouts.get(dialogueId)!, dialogues[dialogueId]!.leaf, reward, seats);
    }
  }
  return search;
}

/** What a turn of a search is worth to who said it. */
export interface ValuedTurn {
  readonly speaker: string;
  readonly value: number;
}

/** The turns of a tree that have a value. */
export function valuedTurns({ conversation, tree }: ValuedTree): ValuedTurn[] {
  return Object.values(conversation.turns).flatMap(({ id, speaker }) => {
    const node = tree.nodes.get(id);
    const value = node === undefined ? null : valueTo(speaker, node);
    return value === null ? [] : [{ speaker, value }];
  });
}

/**
 * Puts values on one scale for all roles: of each role's turns they get the mean and the spread that all turns have. The
 * first speaker's turns share what comes after them and are worth much alike, the last one's win or lose; thresholds would
 * choose the pairs of the one and not of the other (normalization by agent: Dr. MAS, multi-agent GRPO).
 */
export function scaleByRole(turns: readonly ValuedTurn[]): (value: number, speaker: string) => number {
  const all = spreadOf(turns);
  const speakers = [...new Set(turns.map(({ speaker }) => speaker))];
  const own = new Map(
    speakers.map((name) => [name, spreadOf(turns.filter(({ speaker }) => speaker === name))] as const),
  );
  return (value, speaker) => {
    const { centre, deviation } = own.get(speaker)!;
    // Turns that are all worth the same, but for rounding, stand in the middle.
    const steps = deviation < 1e-9 ? 0 : (value - centre) / deviation;
    return all.centre + all.deviation * steps;
  };
}

function spreadOf(turns: readonly ValuedTurn[]) {
  const values = turns.map(({ value }) => value);
  return { centre: mean(values), deviation: standardDeviation(values) };
}

/** Whether a turn may be the better one of a pair: no open case on the way to it that the recipe does not let through. */
export function mayChoose(
  conversation: ConversationTree,
  eligible: EdgeCasePolicy,
  answer: AnswerParser,
): (node: NodeId) => boolean {
  const outcomes = new Map(
    Object.values(conversation.dialogues).flatMap(({ leaf, closed }) =>
      closed === null ? [] : [[leaf, closed.outcome] as const],
    ),
  );
  return (node) => {
    const turns = pathTo(conversation, node);
    // A turn after which the dialogue went on is none of the cases that its end makes.
    const outcome = outcomes.get(node) ?? 'failed';
    return edgeCasesOf({ turns, outcome }, answer).every((edgeCase) => eligible[edgeCase]);
  };
}

export interface ChooseOptions extends Pick<PreferenceRecipe, 'pairs' | 'eligible'> {
  /** The roles of whose turns there are pairs. */
  readonly trained: readonly string[];
  /** What the verdicts of the tree's dialogues read answers with. */
  readonly answer: AnswerParser;
  /** Null: values are taken as they are. */
  readonly scale: ReturnType<typeof scaleByRole> | null;
}

/** The pairs of a tree above the thresholds, before the better share of them is kept, and why the others are none. */
export function choosePairs(
  { conversation, tree }: ValuedTree,
  { pairs: { from: pairs, ...thresholds }, eligible, trained, answer, scale }: ChooseOptions,
): { readonly pairs: readonly Pair[]; readonly dropped: DroppedPairs } {
  const isEligible = mayChoose(conversation, eligible, answer);
  const speakerOf = (node: NodeId) => conversation.turns[node]!.speaker;
  const may = (node: NodeId) => trained.includes(speakerOf(node)) && isEligible(node);
  const worth = (_: number, node: NodeId) => {
    const speaker = speakerOf(node);
    const value = valueTo(speaker, tree.nodes.get(node)!)!;
    return scale?.(value, speaker) ?? value;
  };
  return pairsOf(tree, { pairs, ...thresholds }, may, worth);
}
