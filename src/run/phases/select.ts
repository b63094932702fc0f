// Select: chooses the dialogues to train on.
import { OptimaError } from '../../domain/errors.ts';
import type { PhaseOutputOf, RunEvent } from '../../domain/events.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import type { RankedTrajectory } from '../../reading/ranking.ts';
import { selectTrajectories } from '../../reading/selection.ts';
import { trainedRoles } from '../../scenario/types.ts';
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
  const rank = run.outputOf({ name: phase.ranking, kind: 'rank' })!;
  const nothing = `nothing to train on: ${dropped.noCandidate} tasks have no eligible dialogue, ${dropped.belowThreshold} none with a reward above ${threshold}`;
  if (kept.length === 0 && phase.iteration === 0) {
    throw new OptimaError('selection.empty', `${name}: ${nothing}.`, {
      hint: adviceOn(rank, dropped.belowThreshold, thresholdKey),
    });
  }
  run.record({ type: 'selection.made', phase: name, kept, dropped });
  const bySeat = kept.some(({ role }) => role !== undefined);
  progress.end(
    kept.length === 0
      ? `${nothing}; the run ends with the policy before`
      : `${kept.length} of ${ranked} dialogues kept${bySeat ? ', counted for each role' : ''}${rank.metrics.taskScore > 0 ? '' : `: ${noneScored}`}`,
  );
  const least = kept.length === 0 ? null : Math.min(...kept.map(({ reward }) => reward));
  return { kind: 'select', kept: kept.length, threshold: least };
}

/** What to do where nothing is worth training on: a lower threshold helps only dialogues that are right at all. */
function adviceOn(
  { metrics, edgeCases, ranked }: PhaseOutputOf<'rank'>,
  belowThreshold: number,
  thresholdKey: string,
): string {
  if (metrics.taskScore === 0) {
    return `${capital(noneScored)}, and a lower threshold would train on wrong answers: warm the model up on what the scenario demonstrates (optima warmup … --from …), then start again.`;
  }
  if (belowThreshold === 0) {
    const [[edgeCase, count]] = Object.entries(edgeCases).sort(([, a], [, b]) => b - a) as [[string, number]];
    return `The commonest reason is ${edgeCase}, in ${count} of ${ranked} dialogues: warm the model up, or let it through (--set eligible.${edgeCase}=true).`;
  }
  return `Start again with a lower threshold (--set ${thresholdKey}=…) or more tasks.`;
}

export const noneScored = 'no dialogue scored above 0';
const capital = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;

function* rankedOf(events: Iterable<RunEvent>): Generator<RankedTrajectory> {
  for (const event of events) if (event.type === 'trajectory.ranked') yield event;
}
