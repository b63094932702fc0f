// Selection (docs/method.md §3, §4): the best dialogue of each task, if it passes the threshold, and of those the top
// share. Pure.
import type { RunEventOf } from '../domain/events.ts';
import type { RankedTrajectory } from './ranking.ts';

export interface SelectOptions {
  /** θ: a task's best dialogue is kept if its reward is above this. */
  readonly threshold: number;
  /** Share of those to keep, best rewards first, in (0, 1]. */
  readonly keepFraction: number;
}

export interface Selection extends Pick<RunEventOf<'selection.made'>, 'kept' | 'dropped'> {
  /** Dialogues selected from. */
  readonly ranked: number;
}

/**
 * Selects from a ranking, of which it keeps the best dialogue of each task in memory. Ties go to the dialogue that stands
 * first. The share is rounded to whole dialogues and keeps at least one; `dropped` counts the tasks without a dialogue in
 * `kept`, by reason.
 */
export function selectTrajectories(
  ranking: Iterable<RankedTrajectory>,
  { threshold, keepFraction }: SelectOptions,
): Selection {
  const tasks = new Set<string>();
  const best = new Map<string, Selection['kept'][number] & { readonly place: number }>();
  let ranked = 0;
  for (const { dialogueId, taskId, reward, eligible } of ranking) {
    const place = ranked++;
    tasks.add(taskId);
    if (reward === null || !eligible) continue;
    const rival = best.get(taskId);
    if (rival === undefined || reward > rival.reward) best.set(taskId, { dialogueId, taskId, reward, place });
  }
  const passed = [...best.values()]
    .filter(({ reward }) => reward > threshold)
    .sort((a, b) => b.reward - a.reward || a.place - b.place);
  const kept = passed
    .slice(0, Math.max(1, Math.round(keepFraction * passed.length)))
    .map(({ dialogueId, taskId, reward }) => ({ dialogueId, taskId, reward }));
  return {
    kept,
    dropped: {
      noCandidate: tasks.size - best.size,
      belowThreshold: best.size - passed.length,
      beyondFraction: passed.length - kept.length,
    },
    ranked,
  };
}
