// Ranking: the reward of every dialogue of an iteration (docs/method.md §2), and the cases the paper leaves open.
// Pure; src/run/readability.ts asks the frozen base model for the log-probabilities.
import { messageOf } from '../domain/errors.ts';
import type { EdgeCase, RunEventOf } from '../domain/events.ts';
import type { DialogueId } from '../domain/ids.ts';
import { mean } from '../domain/metrics.ts';
import { computeLossTerm, computeReward, computeSeatRewards, type RewardWeights } from '../domain/reward.ts';
import { messageTokens, type Trajectory } from '../domain/transcript.ts';
import type { Recipe } from '../recipe/schema.ts';
import type { AnswerParser, Scenario } from '../scenario/types.ts';

/** A dialogue's place in the ranking, as the log holds it. */
export type RankedTrajectory = Omit<RunEventOf<'trajectory.ranked'>, 'type'>;

/** For each case the paper leaves open: may such a dialogue be trained on? It is counted either way. */
export type EdgeCasePolicy = Readonly<Record<EdgeCase, boolean>>;

export interface RankOptions {
  readonly weights: RewardWeights;
  /** Least R_loss, nats. */
  readonly lossFloor: number;
  readonly eligible: EdgeCasePolicy;
  /** What the verdicts read answers with: `Course.answer` of the dialogues' task. */
  readonly answer: AnswerParser;
  /** What the token share is taken against; by default the longest judged dialogue of the same task. */
  readonly normaliser?: number;
}

/**
 * Ranks an iteration's dialogues, in the order given. `turnLogprobs` holds the base model's log-probabilities
 * of each turn's tokens. A dialogue that failed, or whose reward is not a number, has no reward: its `failure` says why.
 */
export function rankTrajectories(
  trajectories: readonly Trajectory[],
  turnLogprobs: ReadonlyMap<DialogueId, readonly (readonly number[])[]>,
  { weights, lossFloor, eligible, answer, normaliser }: RankOptions,
): RankedTrajectory[] {
  const mostTokens = new Map<string, number>();
  for (const { taskId, turns, verdict } of trajectories) {
    if (verdict === null) continue;
    mostTokens.set(taskId, Math.max(mostTokens.get(taskId) ?? 0, messageTokens(turns)));
  }
  return trajectories.map((trajectory) => {
    const { id: dialogueId, taskId, turns, verdict } = trajectory;
    const tokens = messageTokens(turns);
    const edgeCases = edgeCasesOf(trajectory, answer);
    const logprobs = turnLogprobs.get(dialogueId) ?? [];
    const ranked = { dialogueId, taskId, tokens, edgeCases };
    const fail = (failure: string) => ({
      ...ranked,
      ...{ terms: null, reward: null, turnLosses: [], eligible: false, failure },
    });
    if (verdict === null) return fail(trajectory.failure ?? 'The dialogue has no verdict.');
    try {
      const terms = {
        task: verdict.taskScore,
        tokenShare: tokens / (normaliser ?? mostTokens.get(taskId)!),
        loss: computeLossTerm(logprobs, lossFloor),
      };
      const reward = computeReward(terms, weights);
      const mayTrain = edgeCases.every((edgeCase) => eligible[edgeCase]);
      const turnLosses = logprobs.map((turn) => Math.round(-1e6 * mean(turn)) / 1e6 + 0);
      const seats = verdict.seats && computeSeatRewards(verdict.seats, terms, weights);
      return {
        ...ranked,
        ...{ terms, reward, turnLosses, eligible: mayTrain, failure: null },
        ...(seats && { seats }),
      };
    } catch (error) {
      return fail(messageOf(error));
    }
  });
}

/** What a recipe says of ranking, and where it says nothing, the scenario; which answer counts differs by the task. */
export function rankOptionsOf({ reward, eligible }: Recipe, scenario: Scenario): Omit<RankOptions, 'answer'> {
  return {
    weights: {
      lambdaToken: reward.lambdaToken ?? scenario.reward.lambdaToken,
      lambdaLoss: reward.lambdaLoss ?? scenario.reward.lambdaLoss,
    },
    lossFloor: reward.lossFloor,
    eligible,
  };
}

/** Which of the open cases a dialogue is. */
export function edgeCasesOf(
  trajectory: Pick<Trajectory, 'turns' | 'outcome'>,
  answer: AnswerParser,
): EdgeCase[] {
  const { turns, outcome } = trajectory;
  const found: EdgeCase[] = [];
  if (turns.some((turn) => turn.text.trim() === '')) found.push('emptyMessage');
  if (hasRepetition(trajectory, answer)) found.push('repetition');
  if (turns.some((turn) => turn.finish === 'length')) found.push('cappedMessage');
  if (outcome === 'turn-cap') found.push('turnCap');
  return found;
}

/**
 * Whether a message repeats an earlier one word for word. Confirming an answer is no repetition: not when a
 * partner says it after the other, and not in the message on which the dialogue ended in agreement, or the round. Nor is what
 * several say at once.
 */
function hasRepetition(
  { turns, outcome }: Pick<Trajectory, 'turns' | 'outcome'>,
  answer: AnswerParser,
): boolean {
  return turns.some((turn, index) => {
    const text = turn.text.trim();
    if (text === '') return false;
    const { round = [turn.speaker] } = turn;
    const concludes = outcome === 'agreed' && index >= turns.length - round.length;
    const confirms = answer.parse(text) !== null;
    return turns
      .slice(0, index - round.indexOf(turn.speaker))
      .some(
        (earlier) =>
          earlier.text.trim() === text && !(confirms && (concludes || earlier.speaker !== turn.speaker)),
      );
  });
}
