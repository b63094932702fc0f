// A recorded ranking under other rules, dialogue by dialogue, and what is said of any choice made anew of it.

import { messageOf } from '../../domain/errors.ts';
import type { RunEvent } from '../../domain/events.ts';
import type { DialogueId, TaskId } from '../../domain/ids.ts';
import { computeReward, computeSeatRewards, type RewardTerms } from '../../domain/reward.ts';
import type { Verdict } from '../../domain/transcript.ts';
import type { Recipe } from '../../recipe/schema.ts';
import type { AnswerParser, Scenario } from '../../scenario/types.ts';
import type { Pair } from '../../search/index.ts';
import { type RankedTrajectory, type RankOptions, rankOptionsOf } from '../ranking.ts';

/** What a run chose, or would have. */
export interface Both<T> {
  readonly before: T;
  readonly after: T;
}

/** A phase that chose, of a run's plan under the changed recipe. */
export type Choice =
  | {
      readonly kind: 'select';
      readonly name: string;
      /** The phases that ranked its dialogues, and that held them. */
      readonly ranking: string;
      readonly dialogues: string;
      readonly threshold: number;
      readonly keepFraction: number;
    }
  | { readonly kind: 'pair'; readonly name: string; readonly search: string; readonly pilot: string };

/** The log of a run, by its completed phases. */
export interface RerankedLog {
  has(phase: string): boolean;
  /** The events of a phase that it has. */
  eventsOf(phase: string): Iterable<RunEvent>;
}

export interface RerankPlan {
  readonly run: RerankedLog;
  /** The run's recipe, and the one that is asked about. */
  readonly recipe: Both<Recipe>;
  /** With the roles that the run did not train. */
  readonly scenario: Scenario;
  readonly choices: readonly Choice[];
  /** What the verdicts of a search phase read answers with. */
  answersIn(search: string): Promise<ReadonlyMap<TaskId, AnswerParser>>;
  /** Of this one details are wanted. */
  readonly task?: TaskId | undefined;
}

/** A dialogue that is chosen in one ranking and not in the other. */
export interface DialogueFlip {
  readonly taskId: TaskId;
  readonly dialogueId: DialogueId;
  /** For whose training, where seats have rewards. */
  readonly role?: string;
  readonly chosen: 'gained' | 'lost';
  readonly reward: Both<number | null>;
}

/** What a pair is by: the better turn's value, and by how much it exceeds the other's. */
export type PairWorth = Pick<Pair, 'value' | 'gap'>;

/** A pair that is chosen in one ranking and not in the other, or the other way round. */
export interface PairFlip extends Pick<Pair, 'parent' | 'chosen' | 'rejected'> {
  readonly taskId: TaskId;
  /** `turned`: what was the better turn is the worse one; `chosen` is the one that is better now. */
  readonly pair: 'gained' | 'lost' | 'turned';
  readonly worth: Both<PairWorth | null>;
}

/** One dialogue in both rankings. */
export interface RerankedDialogue extends Both<RankedTrajectory> {
  /** Whether it is trained on, by whom where seats have rewards; in a search: no dialogue is. */
  readonly kept: Both<readonly string[]>;
}

/** A pair of the task that is asked for, with what its turns said. */
export interface PairDetail extends Pick<Pair, 'parent' | 'chosen' | 'rejected'>, Both<PairWorth | null> {
  readonly speaker: string;
  readonly texts: { readonly chosen: string; readonly rejected: string };
}

export interface TaskDetail {
  readonly taskId: TaskId;
  readonly dialogues: readonly RerankedDialogue[];
  /** None of a selection. */
  readonly pairs: readonly PairDetail[];
}

/** What became of one phase that chose. */
export interface RerankedChoice {
  readonly phase: string;
  readonly kind: Choice['kind'];
  /** Dialogues that were ranked, and how many of these have another reward now. */
  readonly ranked: number;
  readonly changed: number;
  readonly meanReward: Both<number>;
  /** Dialogues, counted for each role where seats have rewards, or pairs. The run may not have come to the choice: then 0. */
  readonly kept: Both<number>;
  /** Of those that are kept in both, how many have another reward or value. */
  readonly moved: number;
  /** What was not kept, by the reason. */
  readonly dropped: Both<Readonly<Record<string, number>>>;
  readonly flips: readonly (DialogueFlip | PairFlip)[];
  /** Null where the task asked for has no part in it, or none is. */
  readonly task: TaskDetail | null;
}

/** By what a recorded dialogue gets its new reward. */
export interface RerankRules extends Pick<RankOptions, 'weights' | 'lossFloor' | 'eligible'> {
  /** The floor that its recorded R_loss was held to. */
  readonly recordedFloor: number;
  /** What its tokens are taken against; null: the recorded share holds. */
  readonly normaliser: number | null;
}

/**
 * The ranking of a dialogue under other rules. `scores` are its seats' scores, which the log has with the verdict: wanted where
 * the ranking has rewards of seats. Below the recorded floor R_loss comes from the losses of the turns, which the log has to six
 * decimals; all else is exact.
 */
export function rerankTrajectory(
  recorded: RankedTrajectory,
  { weights, lossFloor, recordedFloor, eligible, normaliser }: RerankRules,
  scores?: Verdict['seats'],
): RankedTrajectory {
  if (recorded.terms === null) return recorded;
  const { task, tokenShare, loss } = recorded.terms;
  const isFloored = lossFloor < recordedFloor && loss === recordedFloor;
  const terms: RewardTerms = {
    task,
    tokenShare: normaliser === null ? tokenShare : recorded.tokens / normaliser,
    loss: Math.max(isFloored ? Math.max(...recorded.turnLosses) : loss, lossFloor),
  };
  try {
    const seats = recorded.seats && scores && computeSeatRewards(scores, terms, weights);
    return {
      ...recorded,
      ...{ terms, reward: computeReward(terms, weights) },
      eligible: recorded.edgeCases.every((edgeCase) => eligible[edgeCase]),
      ...(seats && { seats }),
    };
  } catch (error) {
    const { seats: _, ...rest } = recorded;
    return { ...rest, terms: null, reward: null, eligible: false, failure: messageOf(error) };
  }
}

/** The rules of a changed recipe. */
export const rulesOf = ({ recipe, scenario }: RerankPlan, normaliser: number | null = null): RerankRules => ({
  ...rankOptionsOf(recipe.after, scenario),
  recordedFloor: recipe.before.reward.lossFloor,
  normaliser,
});

/** What a dialogue is worth, to the team and to each seat. */
type Worth = Pick<RankedTrajectory, 'reward' | 'seats'>;

export const worthTo = (role: string | undefined, { reward, seats }: Worth): number | null =>
  (role === undefined ? undefined : seats?.[role]) ?? reward;

/** Both rewards of the dialogues of a phase, as they go by. */
export class Tally {
  ranked = 0;
  changed = 0;
  readonly worths = new Map<DialogueId, Both<Worth>>();
  readonly #sums = { before: 0, after: 0, valued: 0 };

  add({ before, after }: Both<RankedTrajectory>): void {
    this.ranked++;
    if (!isSame(worthOf(before), worthOf(after))) this.changed++;
    this.worths.set(before.dialogueId, { before: worthOf(before), after: worthOf(after) });
    if (before.reward === null || after.reward === null) return;
    this.#sums.valued++;
    this.#sums.before += before.reward;
    this.#sums.after += after.reward;
  }

  /** Over the dialogues that have one. */
  get meanReward(): Both<number> {
    const { before, after, valued } = this.#sums;
    return valued === 0 ? { before: 0, after: 0 } : { before: before / valued, after: after / valued };
  }
}

const worthOf = ({ reward, seats }: RankedTrajectory): Worth => ({ reward, ...(seats && { seats }) });
export const isSame = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);

/** The details of the task that is asked for; null where it has no dialogue. */
export function detailOf(
  taskId: TaskId | undefined,
  dialogues: readonly Both<RankedTrajectory>[],
  keptOf: (id: DialogueId) => Both<readonly string[]>,
  pairs: readonly PairDetail[] = [],
): TaskDetail | null {
  if (taskId === undefined || dialogues.length === 0) return null;
  return {
    taskId,
    dialogues: dialogues.map((both) => ({ ...both, kept: keptOf(both.before.dialogueId) })),
    pairs,
  };
}
