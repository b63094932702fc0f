// Train: fine-tunes on the chosen dialogues, or trains by preference on the chosen pairs, and leaves a checkpoint.
import { OptimaError } from '../../domain/errors.ts';
import type { PhaseOutputOf, RunEventOf } from '../../domain/events.ts';
import type { DialogueId, NodeId, PolicyHash, TeamPolicy } from '../../domain/ids.ts';
import type { TrainingSequence } from '../../domain/model.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import type { LlamaPolicy } from '../../models/llama/index.ts';
import { type DpoConfig, dpoObjective, type PreferenceExample, trainDpo } from '../../training/dpo/index.ts';
import type { EpochsOptions } from '../../training/epochs.ts';
import type { Objective } from '../../training/objective.ts';
import { sftExamples, sftObjective, trainSft } from '../../training/sft/index.ts';
import { preferenceExample, preferenceOf } from '../pairing.ts';
import { baseOf, latestPolicy, type PhaseContext, sharedBy } from './context.ts';

type TrainPhase = PlannedPhases['train'];

/** What a training comes to, before its checkpoint is saved. */
type Trained = Omit<PhaseOutputOf<'train'>, 'kind' | 'policy'>;

export async function train(context: PhaseContext, phase: TrainPhase): Promise<PhaseOutputOf<'train'>> {
  const { run, shelf, scenario } = context;
  const start = sharedPolicy(phase.startFrom === 'base' ? baseOf(context) : latestPolicy(context, phase));
  const policy = await shelf.load(start);
  try {
    const trained =
      phase.on.method === 'sft'
        ? await trainOnDialogues(context, phase, phase.on, policy, start)
        : await trainOnPairs(context, phase, phase.on, policy, start);
    const hash = await run.saveCheckpoint(policy);
    return { kind: 'train', ...trained, policy: sharedBy(scenario, hash) };
  } finally {
    policy.dispose();
  }
}

/** What every training of a run reports, and where its gradients are computed. */
function optionsOf<Example>(
  { run, shelf, progress, signal }: PhaseContext,
  { name }: TrainPhase,
  objective: Objective<Example>,
  start: PolicyHash,
  policy: LlamaPolicy,
): EpochsOptions<Example> {
  return {
    ...(signal === undefined ? {} : { signal }),
    computePasses: shelf.gradientsOf(objective, start, policy),
    onStart: (steps) => progress.begin(name, steps, 'steps'),
    onStep: (report) => {
      run.record({ type: 'step.trained', phase: name, ...report });
      progress.advance(report.step + 1);
    },
  };
}

async function trainOnDialogues(
  context: PhaseContext,
  phase: TrainPhase,
  on: Extract<TrainPhase['on'], { method: 'sft' }>,
  policy: LlamaPolicy,
  start: PolicyHash,
): Promise<Trained> {
  const { recipe, progress, rng } = context;
  const { steps, loss, figures, skipped, truncated } = await trainSft(
    policy,
    chosenSequences(context, on, policy),
    recipe.sft,
    rng.split(phase.name),
    optionsOf(context, phase, sftObjective, start, policy),
  );
  const cut = `${truncated} sequences cut at ${recipe.sft.maxSequenceTokens} tokens, ${skipped} of them left out`;
  progress.end(`loss ${loss.toFixed(3)}${truncated > 0 ? `; ${cut}` : ''}`);
  return { steps, loss, figures, warnings: [] };
}

async function trainOnPairs(
  context: PhaseContext,
  phase: TrainPhase,
  on: Extract<TrainPhase['on'], { method: 'dpo' }>,
  policy: LlamaPolicy,
  start: PolicyHash,
): Promise<Trained> {
  const { progress, rng } = context;
  const config: DpoConfig = preferenceOf(context.recipe).dpo;
  const { steps, loss, figures, tooLong, identical, warnings } = await trainDpo(
    policy,
    chosenPairs(context, on, policy, start),
    config,
    rng.split(phase.name),
    optionsOf(context, phase, dpoObjective(config), start, policy),
  );
  const percent = (share = 0) => `${(100 * share).toFixed(0)} %`;
  const left = [
    tooLong > 0 && `${tooLong} pairs left out as longer than ${config.maxSequenceTokens} tokens`,
    identical > 0 && `${identical} left out as their turns are the same`,
  ].filter((words) => words !== false);
  progress.end(
    [
      `loss ${loss.toFixed(3)}, ${percent(figures['rewards/accuracies'])} of pairs in order, ${percent(figures['tokens/computed']! / figures['tokens/plain']!)} of their tokens read`,
      ...left,
      ...warnings,
    ].join('; '),
  );
  return { steps, loss, figures, warnings };
}

/** The sequences of the dialogues that were chosen, best first; no more of the dialogues is held. */
function chosenSequences(
  { run }: PhaseContext,
  { dialogues, selection }: Extract<TrainPhase['on'], { method: 'sft' }>,
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

/** The pairs that were chosen, tree by tree. */
function chosenPairs(
  { run }: PhaseContext,
  { search, pairs: pairing }: Extract<TrainPhase['on'], { method: 'dpo' }>,
  policy: LlamaPolicy,
  reference: PolicyHash,
): PreferenceExample[] {
  const made = new Map<NodeId, RunEventOf<'pairs.made'>['pairs']>();
  for (const event of run.eventsOf(pairing)) {
    if (event.type === 'pairs.made' && event.pairs.length > 0) made.set(event.tree, event.pairs);
  }
  const examples: PreferenceExample[] = [];
  for (const { conversation, viewsOf } of run.treesOf(search)) {
    for (const pair of made.get(conversation.root) ?? []) {
      examples.push(preferenceExample(conversation, viewsOf(), pair, policy, reference));
    }
    made.delete(conversation.root);
  }
  const [lost] = made.keys();
  if (lost === undefined) return examples;
  throw new OptimaError('run.corrupt', `${pairing} has pairs of ${lost}, which ${search} does not have.`);
}

/** The one policy that speaks for every role: these recipes train no other kind of team. */
function sharedPolicy(team: TeamPolicy): PolicyHash {
  const [first, ...others] = new Set(Object.values(team));
  if (first === undefined || others.length > 0)
    throw new Error('The roles of the team do not share a policy.');
  return first;
}
