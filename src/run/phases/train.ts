// Train: fine-tunes on the chosen dialogues, each agent's plain view of them, and leaves a checkpoint.
import { OptimaError } from '../../domain/errors.ts';
import type { PhaseOutputOf } from '../../domain/events.ts';
import type { DialogueId, PolicyHash, TeamPolicy } from '../../domain/ids.ts';
import type { TrainingSequence } from '../../domain/model.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import type { LlamaPolicy } from '../../models/llama/index.ts';
import { sftExamples, sftObjective, trainSft } from '../../training/sft/index.ts';
import { baseOf, latestPolicy, type PhaseContext, sharedBy } from './context.ts';

export async function train(
  context: PhaseContext,
  phase: PlannedPhases['train'],
): Promise<PhaseOutputOf<'train'>> {
  const { run, recipe, shelf, progress, signal, rng } = context;
  const { name } = phase;
  const start = sharedPolicy(phase.startFrom === 'base' ? baseOf(context) : latestPolicy(context, phase));
  const policy = await shelf.load(start);
  try {
    const sequences = chosenSequences(context, phase, policy);
    const { steps, loss, skipped, truncated } = await trainSft(
      policy,
      sequences,
      recipe.sft,
      rng.split(name),
      {
        signal,
        computePasses: shelf.gradientsOf(sftObjective, start, policy),
        onStart: (steps) => progress.begin(name, steps, 'steps'),
        onStep: (report) => {
          run.record({ type: 'step.trained', phase: name, ...report });
          progress.advance(report.step + 1);
        },
      },
    );
    const cut = `${truncated} sequences cut at ${recipe.sft.maxSequenceTokens} tokens, ${skipped} of them left out`;
    progress.end(`loss ${loss.toFixed(3)}${truncated > 0 ? `; ${cut}` : ''}`);
    const hash = await run.saveCheckpoint(policy);
    return { kind: 'train', steps, loss, policy: sharedBy(context.scenario, hash) };
  } finally {
    policy.dispose();
  }
}

/** The sequences of the dialogues that were chosen, best first; no more of the dialogues is held. */
function chosenSequences(
  { run }: PhaseContext,
  { dialogues, selection }: PlannedPhases['train'],
  policy: LlamaPolicy,
): TrainingSequence[] {
  const chosen = new Map<DialogueId, TrainingSequence[] | null>();
  for (const event of run.eventsOf(selection)) {
    if (event.type !== 'selection.made') continue;
    for (const { dialogueId } of event.kept) chosen.set(dialogueId, null);
  }
  for (const dialogue of run.dialoguesOf(dialogues)) {
    if (chosen.has(dialogue.id)) chosen.set(dialogue.id, sftExamples(dialogue, policy));
  }
  for (const [id, sequences] of chosen) {
    if (sequences === null)
      throw new OptimaError('run.corrupt', `${selection} chose ${id}, which ${dialogues} does not have.`);
  }
  return [...chosen.values()].flatMap((sequences) => sequences ?? []);
}

/** The one policy that speaks for every role: this recipe trains no other kind of team. */
function sharedPolicy(team: TeamPolicy): PolicyHash {
  const [first, ...others] = new Set(Object.values(team));
  if (first === undefined || others.length > 0)
    throw new Error('The roles of the team do not share a policy.');
  return first;
}
