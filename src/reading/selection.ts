// Selection (docs/method.md §3, §4): the best dialogue of each task, if it passes the threshold, and of those the top
// share; where seats have rewards of their own, so for each role. Pure.
import type { RunEventOf } from '../domain/events.ts';
import type { RankedTrajectory } from './ranking.ts';

export interface SelectOptions {
  /** θ: a task's best dialogue is kept if its reward is above this. */
  readonly threshold: number;
  /** Share of those to keep, best rewards first, in (0, 1]. */
  readonly keepFraction: number;
  /** Who is trained: each gets a selection of its own where seats have rewards. By default nobody does. */
  readonly roles?: readonly string[];
}

export interface Selection extends Pick<RunEventOf<'selection.made'>, 'kept' | 'dropped'> {
  /** Dialogues selected from. */
  readonly ranked: number;
}

type Candidate = Selection['kept'][number] & { readonly place: number };

/**
 * Selects from a ranking, of which it keeps the best dialogue of each task in memory. Ties go to the dialogue that stands
 * first. The share is rounded to whole dialogues and keeps at least one; `dropped` counts the tasks without a dialogue in
 * `kept`, by reason. As soon as one dialogue has rewards by seat, each role has a selection of its own, by its rewards (the
 * team's, where a dialogue has no other), and `dropped` counts for all of them.
 */
export function selectTrajectories(
  ranking: Iterable<RankedTrajectory>,
  { threshold, keepFraction, roles = [] }: SelectOptions,
): Selection {
  const tasks = new Set<string>();
  const ofTeam = new Map<string, Candidate>();
  const ofRole = new Map(roles.map((role) => [role, new Map<string, Candidate>()]));
  let ranked = 0;
  let bySeat = false;
  for (const { dialogueId, taskId, reward, eligible, seats } of ranking) {
    const place = ranked++;
    tasks.add(taskId);
    bySeat ||= seats !== undefined && roles.length > 0;
    if (reward === null || !eligible) continue;
    const compete = (best: Map<string, Candidate>, own: number, candidate: object) => {
      const rival = best.get(taskId);
      if (rival === undefined || own > rival.reward)
        best.set(taskId, { dialogueId, taskId, reward: own, ...candidate, place });
    };
    compete(ofTeam, reward, {});
    for (const [role, best] of ofRole) compete(best, seats?.[role] ?? reward, { role });
  }
  const selections = (bySeat ? [...ofRole.values()] : [ofTeam]).map((best) => {
    const passed = [...best.values()]
      .filter(({ reward }) => reward > threshold)
      .sort((a, b) => b.reward - a.reward || a.place - b.place);
    const kept = passed
      .slice(0, Math.max(1, Math.round(keepFraction * passed.length)))
      .map(({ place: _, ...candidate }) => candidate);
    return {
      kept,
      noCandidate: tasks.size - best.size,
      belowThreshold: best.size - passed.length,
      beyondFraction: passed.length - kept.length,
    };
  });
  const sum = (read: (selection: (typeof selections)[number]) => number) =>
    selections.reduce((all, selection) => all + read(selection), 0);
  return {
    kept: selections.flatMap(({ kept }) => kept),
    dropped: {
      noCandidate: sum(({ noCandidate }) => noCandidate),
      belowThreshold: sum(({ belowThreshold }) => belowThreshold),
      beyondFraction: sum(({ beyondFraction }) => beyondFraction),
    },
    ranked,
  };
}
