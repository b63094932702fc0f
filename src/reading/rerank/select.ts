// Selects anew: the dialogues to train on under other rules, beside those that the run chose.
import { OptimaError } from '../../domain/errors.ts';
import type { RunEvent, RunEventOf } from '../../domain/events.ts';
import type { DialogueId } from '../../domain/ids.ts';
import type { Verdict } from '../../domain/transcript.ts';
import { trainedRoles } from '../../scenario/types.ts';
import type { RankedTrajectory } from '../ranking.ts';
import { selectTrajectories } from '../selection.ts';
import {
  type Both,
  type Choice,
  type DialogueFlip,
  detailOf,
  type RerankedChoice,
  type RerankPlan,
  rerankTrajectory,
  rulesOf,
  Tally,
  worthTo,
} from './ranking.ts';

/** Selects anew of a ranking. */
export function reselect(plan: RerankPlan, choice: Extract<Choice, { kind: 'select' }>): RerankedChoice {
  const { run, scenario, task } = plan;
  const { name: phase, threshold, keepFraction } = choice;
  const rules = rulesOf(plan);
  const tally = new Tally();
  const ofTask: Both<RankedTrajectory>[] = [];
  let scores: ReadonlyMap<DialogueId, Verdict['seats']> | null = null;
  function* reranked(): Generator<RankedTrajectory> {
    for (const before of rankedIn(run.eventsOf(choice.ranking))) {
      if (before.seats !== undefined) scores ??= seatScoresIn(run.eventsOf(choice.dialogues));
      const after = rerankTrajectory(before, rules, scores?.get(before.dialogueId));
      tally.add({ before, after });
      if (before.taskId === task) ofTask.push({ before, after });
      yield after;
    }
  }
  const after = selectTrajectories(reranked(), { threshold, keepFraction, roles: trainedRoles(scenario) });
  const before = run.has(phase) ? selectionIn(run.eventsOf(phase)) : { kept: [], dropped: {} };
  const keyOf = ({ dialogueId, role }: Kept) => `${dialogueId} ${role ?? ''}`;
  const keys = { before: new Set(before.kept.map(keyOf)), after: new Set(after.kept.map(keyOf)) };
  const flipOf = (chosen: DialogueFlip['chosen'], { dialogueId, taskId, role }: Kept): DialogueFlip => {
    const worths = tally.worths.get(dialogueId)!;
    const reward = { before: worthTo(role, worths.before), after: worthTo(role, worths.after) };
    return { taskId, dialogueId, ...(role !== undefined && { role }), chosen, reward };
  };
  const rewards = new Map(before.kept.map((one) => [keyOf(one), one.reward]));
  const keepers = (kept: readonly Kept[], id: DialogueId) =>
    kept.filter(({ dialogueId }) => dialogueId === id).map(({ role }) => role ?? 'all');
  return {
    ...{ phase, kind: 'select', ranked: tally.ranked, changed: tally.changed, meanReward: tally.meanReward },
    kept: { before: before.kept.length, after: after.kept.length },
    moved: after.kept.filter((one) => keys.before.has(keyOf(one)) && rewards.get(keyOf(one)) !== one.reward)
      .length,
    dropped: { before: before.dropped, after: after.dropped },
    flips: [
      ...after.kept.filter((one) => !keys.before.has(keyOf(one))).map((one) => flipOf('gained', one)),
      ...before.kept.filter((one) => !keys.after.has(keyOf(one))).map((one) => flipOf('lost', one)),
    ],
    task: detailOf(task, ofTask, (id) => ({
      before: keepers(before.kept, id),
      after: keepers(after.kept, id),
    })),
  };
}

type Kept = RunEventOf<'selection.made'>['kept'][number];

function* rankedIn(events: Iterable<RunEvent>): Generator<RankedTrajectory> {
  for (const event of events) {
    if (event.type !== 'trajectory.ranked') continue;
    const { type: _, ...ranked } = event;
    yield ranked;
  }
}

function selectionIn(events: Iterable<RunEvent>): Pick<RunEventOf<'selection.made'>, 'kept' | 'dropped'> {
  for (const event of events) if (event.type === 'selection.made') return event;
  throw new OptimaError('run.corrupt', 'A completed selection has no selection.made in the log.');
}

function seatScoresIn(events: Iterable<RunEvent>): ReadonlyMap<DialogueId, Verdict['seats']> {
  const scores = new Map<DialogueId, Verdict['seats']>();
  for (const event of events) if (event.type === 'verdict.given') scores.set(event.dialogueId, event.seats);
  return scores;
}
