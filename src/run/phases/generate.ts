// Generate: holds an iteration's dialogues on training tasks that no other iteration has.
import type { PhaseOutputOf } from '../../domain/events.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import { loadTasks } from '../../scenario/tasks.ts';
import { type PhaseContext, policyIn } from './context.ts';
import { holdDialogues } from './dialogues.ts';

export async function generate(
  context: PhaseContext,
  phase: PlannedPhases['generate'],
): Promise<PhaseOutputOf<'generate'>> {
  const { scenario, rng } = context;
  const { figures, sampledTokens } = await holdDialogues(context, {
    ...phase,
    phase: phase.name,
    policy: policyIn(context, phase),
    tasks: await loadTasks(scenario, 'train', phase.tasks, rng),
    formats: phase.formats ? scenario.formats : [],
  });
  const { dialogues, failed } = figures;
  return { kind: 'generate', dialogues, failed, sampledTokens };
}
