import type { PhaseKind } from '../../src/domain/events.ts';
import type { PlannedPhases } from '../../src/machines/index.ts';
import type { IterationPlan } from '../../src/run/plan.ts';

/** The phase of this kind in an iteration, which has one. */
export function phaseOf<Kind extends PhaseKind>({ phases }: IterationPlan, kind: Kind): PlannedPhases[Kind] {
  const found = phases.find((phase) => phase.kind === kind);
  if (found === undefined) throw new Error(`The iteration has no ${kind}.`);
  return found as PlannedPhases[Kind];
}
