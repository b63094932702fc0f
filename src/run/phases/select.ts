// Select: chooses the dialogues to train on.
import { OptimaError } from '../../domain/errors.ts';
import type { PhaseOutputOf, RunEvent } from '../../domain/events.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import { trainedRoles } from '../../scenario/types.ts';
import type { RankedTrajectory } from '../ranking.ts';
import { selectTrajectories } from '../selection.ts';
import type { PhaseContext } from './context.ts';

/**
 * With nothing to train on it rejects with `selection.empty` in the first iteration; a later one keeps nothing, and the
 * iterations end with the policy before.
 */
export async function select(
  { run, scenario, progress }: PhaseContext,
  phase: PlannedPhases['select'],
): Promise<PhaseOutputOf<'select'>> {
  const { name, threshold, thresholdKey } = phase;
  progress.begin(name, 0, 'dialogues');
  const { kept, dropped, ranked } = selectTrajectories(rankedOf(run.eventsOf(phase.ranking)), {
    ...phase,
    roles: trainedRoles(scenario),
  });
  const nothing = `nothing to train on: ${dropped.noCandidate} tasks have no eligible dialogue, ${dropped.belowThreshold} none with a reward above ${threshold}`;
  if (kept.length === 0 && phase.iteration === 0) {
    throw new OptimaError('selection.empty', `${name}: ${nothing}.`, {
      hint: `Start again with a lower threshold (--set ${thresholdKey}=…) or more tasks.`,
    });
  }
  run.record({ type: 'selection.made', phase: name, kept, dropped });
  const bySeat = kept.some(({ role }) => role !== undefined);
  progress.end(
    kept.length === 0
      ? `${nothing}; the run ends with the policy before`
      : `${kept.length} of ${ranked} dialogues kept${bySeat ? ', counted for each role' : ''}`,
  );
  const least = kept.length === 0 ? null : Math.min(...kept.map(({ reward }) => reward));
  return { kind: 'select', kept: kept.length, threshold: least };
}

function* rankedOf(events: Iterable<RunEvent>): Generator<RankedTrajectory> {
  for (const event of events) if (event.type === 'trajectory.ranked') yield event;
}
