// Selection (docs/method.md §3, §4): the best dialogue of each task, if it passes the threshold, and of those the top
// share. Pure.
import type { RunEventOf } from '../domain/events.ts';
import type { RankedTrajectory } from './rank.ts';

export interface SelectOptions {
  /** θ: a task's best dialogue is kept if its reward is above this. */
  readonly threshold: number;
  /** Share of those to keep, best rewards first, in (0, 1]. */
  readonly keepFraction: number;
}

export type Selection = Pick<RunEventOf<'selection.made'>, 'kept' | 'dropped'>;

/**
 * Selects from a ranking. Ties go to the dialogue that stands first in it. The share is rounded to whole
 * dialogues and keeps at least one; `dropped` counts the tasks without a dialogue in `kept`, by reason.
 */
export function selectTrajectories(
  ranking: readonly RankedTrajectory[],
  { threshold, keepFraction }: SelectOptions,
): Selection {
  const best = new Map<string, Selection['kept'][number]>();
  for (const { dialogueId, taskId, reward, eligible } of ranking) {
    if (reward === null || !eligible) continue;
    const rival = best.get(taskId);
    if (rival === undefined || reward > rival.reward) best.set(taskId, { dialogueId, taskId, reward });
  }
  const tasks = new Set(ranking.map(({ taskId }) => taskId)).size;
  const order = new Map(ranking.map(({ dialogueId }, index) => [dialogueId, index]));
  const passed = [...best.values()]
    .filter(({ reward }) => reward > threshold)
    .sort((a, b) => b.reward - a.reward || order.get(a.dialogueId)! - order.get(b.dialogueId)!);
  const kept = passed.slice(0, Math.max(1, Math.round(keepFraction * passed.length)));
  return {
    kept,
    dropped: {
      noCandidate: tasks - best.size,
      belowThreshold: best.size - passed.length,
      beyondFraction: passed.length - kept.length,
    },
  };
}
