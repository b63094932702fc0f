// Evaluate: one dialogue for each of the first tasks of a split, temperature 0, plain prompts.
import type { PhaseOutputOf } from '../../domain/events.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import { measureEvaluation } from '../../rollouts/evaluate.ts';
import { loadTasks } from '../../scenario/tasks.ts';
import { trainedRoles } from '../../scenario/types.ts';
import { type PhaseContext, policyIn } from './context.ts';
import { holdDialogues } from './dialogues.ts';

export async function evaluate(
  context: PhaseContext,
  phase: PlannedPhases['evaluate'],
): Promise<PhaseOutputOf<'evaluate'>> {
  const { scenario, rng } = context;
  const policy = policyIn(context, phase);
  const tasks = await loadTasks(scenario, phase.split, { from: 0, count: phase.tasks }, rng);
  const { name } = phase;
  const plan = { phase: name, policy, tasks, samplesPerTask: 1, formats: [], temperature: 0 };
  const { figures } = await holdDialogues(context, { ...plan, evaluated: trainedRoles(scenario) });
  return { kind: 'evaluate', policy, metrics: measureEvaluation(name, figures, rng) };
}
