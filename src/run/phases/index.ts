// The phases of a run by their kind. Each reads the log and the checkpoints that the phases before it left, and leaves its
// own: nothing else passes between them.
import type { PhaseKind, PhaseOutputOf } from '../../domain/events.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import type { PhaseContext } from './context.ts';
import { evaluate } from './evaluate.ts';
import { generate } from './generate.ts';
import { pair } from './pair.ts';
import { rank } from './rank.ts';
import { search } from './search.ts';
import { select } from './select.ts';
import { train } from './train.ts';

type Phases = {
  readonly [Kind in PhaseKind]: (
    context: PhaseContext,
    phase: PlannedPhases[Kind],
  ) => Promise<PhaseOutputOf<Kind>>;
};

export const phases: Phases = { generate, rank, select, search, pair, train, evaluate };
