// Counterfactual ranking: the rewards, selections and pairs that a run's log would have under other numbers, from the terms
// that it has recorded. Pure: no dialogue is held and no model asked, so what follows from a choice, the dialogues of later
// iterations, stays as it was; and a searched tree keeps its branches, whose roll-outs are valued anew.
import type { RunReader } from '../run-reader.ts';
import { repair } from './pair.ts';
import type { RerankedChoice, RerankedLog, RerankPlan } from './ranking.ts';
import { reselect } from './select.ts';

export type * from './ranking.ts';
export { changesBetween, rerankRecipe } from './settings.ts';

/** Chooses anew, phase by phase, as far as the run's ranked phases go. Rejects with `run.corrupt` as reading the log does. */
export async function* rerankRun(plan: RerankPlan): AsyncGenerator<RerankedChoice> {
  for (const choice of plan.choices) {
    const source = choice.kind === 'select' ? choice.ranking : choice.search;
    if (!plan.run.has(source)) continue;
    yield choice.kind === 'select' ? reselect(plan, choice) : await repair(plan, choice);
  }
}

/** The log of a run as far as its reader has it. */
export function rerankedLog(reader: Pick<RunReader, 'phases' | 'events'>): RerankedLog {
  const ranges = new Map(
    reader.phases().flatMap(({ name, from, to }) => (to === null ? [] : [[name, { from, to }] as const])),
  );
  return {
    has: (phase) => ranges.has(phase),
    eventsOf: (phase) => {
      const { from, to } = ranges.get(phase)!;
      return reader.events(from, to);
    },
  };
}
