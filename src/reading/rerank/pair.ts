// Pairs anew: the turns to train on under other rules, beside the pairs that the run chose.
import { type ConversationTree, Forest, type LoggedTree, treesIn } from '../../domain/conversation-tree.ts';
import type { RunEvent, RunEventOf } from '../../domain/events.ts';
import type { DialogueId, NodeId, TaskId } from '../../domain/ids.ts';
import { percentile } from '../../domain/metrics.ts';
import { writtenOf } from '../../domain/transcript.ts';
import type { PreferenceRecipe } from '../../recipe/schema.ts';
import { trainedRoles } from '../../scenario/types.ts';
import { keepPairs, type Pair } from '../../search/index.ts';
import { choosePairs, preferenceOf, scaleByRole, valuedTurns } from '../pairing.ts';
import {
  type Both,
  type Choice,
  detailOf,
  isSame,
  type PairDetail,
  type PairFlip,
  type PairWorth,
  type RerankedChoice,
  type RerankPlan,
  rulesOf,
  Tally,
} from './ranking.ts';
import { type RevaluedTree, revalue } from './trees.ts';

/** Pairs anew the turns of searched trees. */
export async function repair(
  plan: RerankPlan,
  { name: phase, search, pilot }: Extract<Choice, { kind: 'pair' }>,
): Promise<RerankedChoice> {
  const { run, scenario, task } = plan;
  const recipe = { before: preferenceOf(plan.recipe.before), after: preferenceOf(plan.recipe.after) };
  const { keepShare: share, keepPer: per, values } = recipe.after.pairs;
  const rules = rulesOf(plan, otherNormaliser(plan, recipe, pilot));
  // A tree is in one cohort, and what its roles were told is not asked.
  const trees = () => treesIn(run.eventsOf(search), () => new Forest());
  const revalued = (tree: LoggedTree) => revalue(tree, recipe.after.search.backup, rules);
  let scale: ReturnType<typeof scaleByRole> | null = null;
  if (values === 'per-role')
    scale = scaleByRole(Array.from(trees(), (tree) => valuedTurns(revalued(tree))).flat());
  const answers = await plan.answersIn(search);
  const made = run.has(phase) ? pairsIn(run.eventsOf(phase)) : new Map<NodeId, RunEventOf<'pairs.made'>>();
  const trained = trainedRoles(scenario);
  const tally = new Tally();
  const found: { tree: NodeId; taskId: TaskId; pairs: readonly Pair[] }[] = [];
  const dropped: Both<Record<string, number>> = { before: {}, after: {} };
  const count = (sums: Record<string, number>, more: Readonly<Record<string, number>>) => {
    for (const [reason, n] of Object.entries(more)) sums[reason] = (sums[reason] ?? 0) + n;
  };
  let ofTask: RevaluedTree | null = null;
  for (const logged of trees()) {
    const tree = revalued(logged);
    const { root, taskId } = tree.conversation;
    for (const both of tree.ranked) tally.add(both);
    if (taskId === task) ofTask = tree;
    const answer = answers.get(taskId)!;
    const chosen = choosePairs(tree, { ...recipe.after, trained, answer, scale });
    found.push({ tree: root, taskId, pairs: chosen.pairs });
    count(dropped.after, { ...chosen.dropped });
    count(dropped.before, made.get(root)?.dropped ?? {});
  }
  const perTask = found.map(({ pairs }) => pairs);
  const kept = keepPairs(perTask, { share, per });
  count(dropped.after, { worse: perTask.flat().length - kept.flat().length });
  const pairs = found.flatMap(({ tree, taskId }, index) =>
    comparePairs(taskId, made.get(tree)?.pairs ?? [], kept[index]!),
  );
  const { conversation, ranked = [] } = ofTask ?? {};
  const ofItsTask = pairs.filter(({ taskId }) => taskId === task);
  return {
    ...{ phase, kind: 'pair', ranked: tally.ranked, changed: tally.changed, meanReward: tally.meanReward },
    kept: {
      before: pairs.filter(({ before }) => before !== null).length,
      after: pairs.filter(({ after }) => after !== null).length,
    },
    moved: pairs.filter((pair) => !isFlip(pair) && !isSame(pair.before, pair.after)).length,
    dropped,
    flips: turnedPairs(pairs.filter(isFlip)),
    task: detailOf(
      task,
      ranked,
      () => ({ before: [], after: [] }),
      conversation === undefined ? [] : ofItsTask.map((pair) => pairDetail(conversation, pair)),
    ),
  };
}

/** What the tokens of a search's dialogues are taken against under the changed recipe; null: what they were. */
function otherNormaliser(
  { run }: RerankPlan,
  { before, after }: Both<PreferenceRecipe>,
  pilot: string,
): number | null {
  const { pilotPercentile } = after.search;
  if (pilotPercentile === before.search.pilotPercentile) return null;
  const tokens = new Map<DialogueId, number>();
  const lengths: number[] = [];
  for (const event of run.eventsOf(pilot)) {
    if (event.type === 'turn.taken') {
      const { dialogueId, turn } = event;
      tokens.set(dialogueId, (tokens.get(dialogueId) ?? 0) + turn.tokenIds.length);
    } else if (event.type === 'verdict.given') lengths.push(tokens.get(event.dialogueId) ?? 0);
  }
  return percentile(lengths, pilotPercentile) + 1;
}

/** A pair in both choices: null where it is not chosen. */
interface ComparedPair extends Pick<Pair, 'parent' | 'chosen' | 'rejected'>, Both<PairWorth | null> {
  readonly taskId: TaskId;
}

/** Whether a pair is chosen in one choice only. */
const isFlip = ({ before, after }: ComparedPair): boolean => before === null || after === null;

/** The pairs of a tree that are chosen in either choice: those of the first, then what the second has beside them. */
function comparePairs(taskId: TaskId, before: readonly Pair[], after: readonly Pair[]): ComparedPair[] {
  const keyOf = ({ chosen, rejected }: Pair) => `${chosen} ${rejected}`;
  const worthOf = (pair: Pair | undefined) =>
    pair === undefined ? null : { value: pair.value, gap: pair.gap };
  const byKey = {
    before: new Map(before.map((pair) => [keyOf(pair), pair])),
    after: new Map(after.map((pair) => [keyOf(pair), pair])),
  };
  return [...new Map([...byKey.before, ...byKey.after])].map(([key, { parent, chosen, rejected }]) => ({
    ...{ taskId, parent, chosen, rejected },
    before: worthOf(byKey.before.get(key)),
    after: worthOf(byKey.after.get(key)),
  }));
}

/** Pairs of one choice only; two of the same turns, each the better one once, are one that is turned. */
function turnedPairs(pairs: readonly ComparedPair[]): PairFlip[] {
  const lost = new Map(
    pairs.filter(({ after }) => after === null).map((pair) => [`${pair.rejected} ${pair.chosen}`, pair]),
  );
  const gained = pairs.filter(({ before }) => before === null);
  const turned = new Set<ComparedPair>();
  const flips = gained.map((pair): PairFlip => {
    const { before, after, ...rest } = pair;
    const mirror = lost.get(`${pair.chosen} ${pair.rejected}`);
    if (mirror !== undefined) turned.add(mirror);
    return {
      ...rest,
      pair: mirror === undefined ? 'gained' : 'turned',
      worth: { before: mirror?.before ?? before, after },
    };
  });
  const gone = [...lost.values()].filter((pair) => !turned.has(pair));
  return [
    ...flips,
    ...gone.map(
      ({ before, after, ...rest }): PairFlip => ({ ...rest, pair: 'lost', worth: { before, after } }),
    ),
  ];
}

function pairDetail({ turns }: ConversationTree, { taskId: _, ...pair }: ComparedPair): PairDetail {
  const { chosen, rejected } = pair;
  return {
    ...pair,
    speaker: turns[chosen]!.speaker,
    texts: { chosen: writtenOf(turns[chosen]!), rejected: writtenOf(turns[rejected]!) },
  };
}

function pairsIn(events: Iterable<RunEvent>): Map<NodeId, RunEventOf<'pairs.made'>> {
  const made = new Map<NodeId, RunEventOf<'pairs.made'>>();
  for (const event of events) if (event.type === 'pairs.made') made.set(event.tree, event);
  return made;
}
