// Which siblings of a searched tree are pairs, and why the others are not, from what the log holds. What the log cannot
// tell without its scenario is said to be unknown: how answers are read, and so which repeated message was one.
import { type ConversationTree, type LoggedTree, pathTo } from '../domain/conversation-tree.ts';
import { messageOf, OptimaError } from '../domain/errors.ts';
import type { RunEventOf } from '../domain/events.ts';
import type { NodeId } from '../domain/ids.ts';
import { createRng } from '../domain/rng.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { AnswerParser } from '../scenario/types.ts';
import { comparePairs, type DroppedPairs, type Pair, type SearchTree, valueTo } from '../search/index.ts';
import { searchAgain, searchConfigOf } from './pairing.ts';
import { edgeCasesOf } from './ranking.ts';

type Ranked = RunEventOf<'trajectory.ranked'>;
type Made = RunEventOf<'pairs.made'>;

/**
 * Why two siblings are no pair: as `pairs.made` counts them; `undecided`, where the pairs of the tree have not been made and they
 * may become one; or `unknown`. Null: they are a pair that is trained on.
 */
export type NoPair = keyof DroppedPairs | 'worse' | 'undecided' | 'unknown' | null;

/** Two answers to one history, side by side. */
export interface ComparedTurns {
  readonly parent: NodeId;
  readonly better: NodeId;
  readonly worse: NodeId;
  readonly speaker: string;
  /** Of the better one to its speaker, on the scale on which pairs are chosen; null where that is not known. */
  readonly value: number | null;
  /** How much the worse one's is below it. */
  readonly gap: number | null;
  readonly reason: NoPair;
}

/** The siblings of a searched tree. */
export interface Comparison {
  /** Those that are trained on; null where they have not been chosen yet. */
  readonly kept: readonly Pair[] | null;
  /** How many others there are by why they are none, as the log has it; null as above. */
  readonly dropped: Readonly<Record<string, number>> | null;
  readonly compared: readonly ComparedTurns[];
  /** What the log alone does not tell, in words. */
  readonly untold: readonly string[];
}

/** By what a value is multiplied, and what is added, before pairs are chosen. */
interface Line {
  readonly factor: number;
  readonly shift: number;
}

/** On which scale a role's values are compared; null where it is not known. */
export type Scale = (speaker: string) => Line | null;

const asTheyAre: Scale = () => ({ factor: 1, shift: 0 });

/** A tree's search as its explorer left it; null for a recipe without one. Throws `run.corrupt` where the log does not follow from it. */
export function searchOf(
  tree: Pick<LoggedTree, 'conversation' | 'events'>,
  recipe: Recipe,
): SearchTree | null {
  if (!('search' in recipe)) return null;
  try {
    return searchAgain(tree, searchConfigOf(recipe), createRng(recipe.seed)).tree;
  } catch (error) {
    if (error instanceof OptimaError) throw error;
    throw new OptimaError(
      'run.corrupt',
      `${tree.conversation.root}: not a search of this run: ${messageOf(error)}`,
    );
  }
}

/** A tree of which pairs were kept. */
interface PairedTree {
  readonly conversation: ConversationTree;
  readonly search: SearchTree | null;
  readonly made: Made | null;
}

/**
 * The scale of a search phase. Where its recipe puts the values of all roles on one, that takes all trees; but for each role it
 * is a line, and any pair that was kept says which: its value and its gap, beside those of the search. `trees` are read until
 * every role of the first has its line.
 */
export function scaleFrom(recipe: Recipe, trees: Iterable<PairedTree>): Scale {
  if (!('pairs' in recipe) || recipe.pairs.values === 'raw') return asTheyAre;
  const lines = new Map<string, Line>();
  let speakers: Set<string> | null = null;
  for (const { conversation, search, made } of trees) {
    speakers ??= new Set(Object.values(conversation.turns).map(({ speaker }) => speaker));
    for (const { chosen, rejected, value, gap } of made?.pairs ?? []) {
      const speaker = conversation.turns[chosen]?.speaker;
      const [own, other] = [chosen, rejected].map((id) => {
        const node = search?.nodes.get(id);
        return node === undefined ? null : valueTo(speaker, node);
      });
      if (speaker === undefined || own == null || other == null || own - other < 1e-6) continue;
      const factor = gap / (own - other);
      if (!lines.has(speaker)) lines.set(speaker, { factor, shift: value - factor * own });
    }
    if ([...speakers].every((speaker) => lines.has(speaker))) break;
  }
  return (speaker) => lines.get(speaker) ?? null;
}

export interface ComparisonParts {
  readonly search: SearchTree;
  readonly ranked: readonly Ranked[];
  readonly recipe: Recipe;
  /** Null: the pairs of the tree have not been made. */
  readonly made: Made | null;
  readonly scale: Scale;
}

/** Compares the siblings of a searched tree as the run does. */
export function comparisonOf(
  conversation: ConversationTree,
  { search, ranked, recipe, made, scale }: ComparisonParts,
): Comparison | null {
  if (!('pairs' in recipe)) return null;
  const { from: pairs, thetaFilter, thetaDiff } = recipe.pairs;
  const speakerOf = (node: NodeId) => conversation.turns[node]!.speaker;
  const mayChoose = eligibilityOf(conversation, ranked, recipe);
  const worth = (_: number, node: NodeId) => {
    const { factor, shift } = scale(speakerOf(node)) ?? { factor: 1, shift: 0 };
    return factor * valueTo(speakerOf(node), search.nodes.get(node)!)! + shift;
  };
  const compareWith = (may: (node: NodeId) => boolean) => [
    ...comparePairs(search, { pairs, thetaFilter, thetaDiff }, may, worth),
  ];
  // What an open case may exclude, once taken for eligible and once not.
  const [letThrough, heldBack] = [
    compareWith((node) => mayChoose(node) !== false),
    compareWith((node) => mayChoose(node) === true),
  ];
  const isOpen = (place: number) => letThrough[place]!.reason !== heldBack[place]!.reason;
  const open = letThrough.filter((_, place) => isOpen(place)).length;
  const certain = letThrough.filter(({ reason }) => reason === 'notEligible').length;
  // The log counts how many there are in all, which often says it of each.
  const counted = made?.dropped.notEligible;
  const settled = counted === certain ? letThrough : counted === certain + open ? heldBack : null;
  const isKept = new Set(made?.pairs.map(({ chosen, rejected }) => `${chosen} ${rejected}`));
  const untold = new Set<string>();
  const compared = letThrough.map((pair, place): ComparedTurns => {
    const { parent, chosen: better, rejected: worse, value, gap } = pair;
    const speaker = speakerOf(better);
    const isScaled = scale(speaker) !== null;
    const reasonOf = (): NoPair => {
      if (isKept.has(`${better} ${worse}`)) return null;
      const settledAs = isOpen(place) ? settled : letThrough;
      if (settledAs === null) {
        untold.add(
          'whether a message that repeats an earlier one confirms an answer, which its scenario knows',
        );
        return 'unknown';
      }
      const { reason } = settledAs[place]!;
      if (reason === 'sameText' || reason === 'notEligible') return reason;
      if (!isScaled) {
        untold.add(`on which scale the values of ${speaker} were compared: no pair of its turns was kept`);
        return 'unknown';
      }
      return reason ?? (made === null ? 'undecided' : 'worse');
    };
    const reason = reasonOf();
    return {
      parent,
      better,
      worse,
      speaker,
      value: isScaled ? value : null,
      gap: isScaled ? gap : null,
      reason,
    };
  });
  const found = new Set(compared.map(({ better, worse }) => `${better} ${worse}`));
  if ([...isKept].some((pair) => !found.has(pair)))
    untold.add(
      'how some pairs came about: this version compares other turns than the one that wrote the run',
    );
  return { kept: made?.pairs ?? null, dropped: made?.dropped ?? null, compared, untold: [...untold] };
}

/** A parser that takes no message for an answer, and one that takes every message for one. */
const [neverAnswers, alwaysAnswers] = [null, ''].map(
  (answer): AnswerParser => ({ parse: () => answer, example: () => '' }),
) as [AnswerParser, AnswerParser];

/**
 * Whether a turn may be the better one of a pair (`pairing.ts: mayChoose`): its role is trained, and no open case on the way to it
 * is one that the recipe excludes. Null where only the scenario knows.
 */
function eligibilityOf(
  conversation: ConversationTree,
  ranked: readonly Ranked[],
  { eligible }: Recipe,
): (node: NodeId) => boolean | null {
  const dialogues = Object.values(conversation.dialogues);
  const ranking = new Map(ranked.map((one) => [one.dialogueId, one]));
  const trained = new Set<string>();
  const repeatsAt = new Map<NodeId, boolean>();
  for (const { id, leaf } of dialogues) {
    const own = ranking.get(id);
    if (own === undefined) continue;
    const turns = pathTo(conversation, leaf);
    // What a role says that is not trained is not scored: its losses are 0.
    for (const [place, loss] of own.turnLosses.entries()) if (loss !== 0) trained.add(turns[place]!.speaker);
    const repeats = own.edgeCases.includes('repetition');
    repeatsAt.set(leaf, repeats);
    // Nothing on the way to where nothing repeats does; of the last round, what ends in agreement may repeat.
    const { round } = turns.at(-1) ?? {};
    for (const { id: node } of turns.slice(0, -(round?.length ?? 1)))
      if (!repeats && !repeatsAt.has(node)) repeatsAt.set(node, false);
  }
  const outcomeAt = new Map(
    dialogues.map(({ leaf, closed }) => [leaf, closed?.outcome ?? 'failed'] as const),
  );
  const known = new Map<NodeId, boolean | null>();
  const decide = (node: NodeId): boolean | null => {
    const turns = pathTo(conversation, node);
    if (!trained.has(turns.at(-1)!.speaker)) return ranked.length === 0 ? null : false;
    const outcome = outcomeAt.get(node) ?? 'failed';
    const [most, least] = [neverAnswers, alwaysAnswers].map((answer) =>
      edgeCasesOf({ turns, outcome }, answer),
    );
    if (!least!.every((edgeCase) => eligible[edgeCase])) return false;
    if (most!.every((edgeCase) => eligible[edgeCase])) return true;
    const repeats = repeatsAt.get(node);
    return repeats === undefined ? null : !repeats;
  };
  return (node) => {
    if (!known.has(node)) known.set(node, decide(node));
    return known.get(node)!;
  };
}
