// The table of objectives: how a worker makes one again from its spec.
import { dpoObjective } from './dpo/objective.ts';
import type { Objective, ObjectiveSpec } from './objective.ts';
import { sftObjective } from './sft/objective.ts';

/** The objective of this spec. Its examples are those of whoever sent the spec. */
export function objectiveOf(spec: ObjectiveSpec): Objective<unknown> {
  switch (spec.name) {
    case 'sft':
      return sftObjective;
    case 'dpo':
      return dpoObjective(spec);
  }
}
