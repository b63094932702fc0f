// Train: fine-tunes on the chosen dialogues, or trains by preference on the chosen pairs, and leaves a checkpoint: one for
// the team, or one for each role.
import { cleaningUp, OptimaError } from '../../domain/errors.ts';
import type { PhaseOutputOf, RunEventOf } from '../../domain/events.ts';
import type { DialogueId, NodeId, PolicyHash, TeamPolicy } from '../../domain/ids.ts';
import { mean } from '../../domain/metrics.ts';
import type { TrainingSequence } from '../../domain/model.ts';
import type { PlannedPhases } from '../../machines/index.ts';
import type { LlamaPolicy } from '../../models/llama/index.ts';
import { preferenceOf } from '../../reading/pairing.ts';
import { loraOf } from '../../recipe/lora.ts';
import { type Scenario, trainedRoles } from '../../scenario/types.ts';
import { preferenceExample } from '../../training/dpo/examples.ts';
import { type DpoConfig, dpoObjective, type PreferenceExample, trainDpo } from '../../training/dpo/index.ts';
import type { EpochsOptions } from '../../training/epochs.ts';
import type { Objective } from '../../training/objective.ts';
import { sftExamples, sftObjective, trainSft } from '../../training/sft/index.ts';
import { baseOf, latestPolicy, type PhaseContext, sharedBy } from './context.ts';
import { forkExamples, takeForks } from './forks.ts';

type TrainPhase = PlannedPhases['train'];
type KeptPairs = readonly RunEventOf<'pair.kept'>[];

/** What a training comes to, before its checkpoint is saved. */
type Trained = Omit<PhaseOutputOf<'train'>, 'kind' | 'policy'>;

/** A policy in training. */
interface Trainee {
  /** Whose turns alone it is trained on; null: all roles'. */
  readonly role: string | null;
  /** What it started as. */
  readonly start: PolicyHash;
  readonly policy: LlamaPolicy;
  /** What people see of its training. */
  readonly stage: string;
}

export async function train(context: PhaseContext, phase: TrainPhase): Promise<PhaseOutputOf<'train'>> {
  const { recipe, scenario } = context;
  const start = phase.startFrom === 'base' ? baseOf(context) : latestPolicy(context, phase);
  const forks = takeForks(context, phase);
  if (recipe.policies === 'per-role') return trainEachRole(context, phase, start, forks);
  const { hash, ...trained } = await trainPolicy(context, phase, null, sharedPolicy(scenario, start), forks);
  return { kind: 'train', ...trained, policy: sharedBy(context, hash) };
}

/**
 * One policy after the other, each on its own role's turns. A role that has none among those that were chosen keeps its
 * weights; rejects with `selection.empty` where that is every role.
 */
async function trainEachRole(
  context: PhaseContext,
  phase: TrainPhase,
  start: TeamPolicy,
  forks: KeptPairs,
): Promise<PhaseOutputOf<'train'>> {
  const { scenario, progress } = context;
  const policy: Record<string, PolicyHash> = { ...latestPolicy(context, phase) };
  const all: Trained[] = [];
  const warnings: string[] = [];
  for (const role of trainedRoles(scenario)) {
    try {
      const { hash, ...trained } = await trainPolicy(context, phase, role, start[role]!, forks);
      policy[role] = hash;
      all.push(trained);
      warnings.push(...trained.warnings.map((words) => `${role}: ${words}`));
    } catch (error) {
      if (!(error instanceof OptimaError && error.code === 'selection.empty')) throw error;
      const words = `keeps its weights. ${error.message}`;
      progress.begin(stageOf(phase, role), 0, 'steps');
      progress.end(words);
      warnings.push(`${role}: ${words}`);
    }
  }
  const [first] = all;
  if (first === undefined)
    throw new OptimaError('selection.empty', `${phase.name}: no role has a turn to train on.`);
  const meanOf = (read: (trained: Trained) => number) => mean(all.map(read));
  return {
    kind: 'train',
    steps: all.reduce((sum, { steps }) => sum + steps, 0),
    loss: meanOf(({ loss }) => loss),
    figures: Object.fromEntries(
      Object.keys(first.figures).map((name) => [name, meanOf(({ figures }) => figures[name]!)]),
    ),
    warnings,
    policy,
  };
}

const stageOf = ({ name }: TrainPhase, role: string | null) => (role === null ? name : `${name} ${role}`);

/** Trains a policy that starts as `start`, and leaves its checkpoint. */
async function trainPolicy(
  context: PhaseContext,
  phase: TrainPhase,
  role: string | null,
  start: PolicyHash,
  forks: KeptPairs,
): Promise<Trained & { readonly hash: PolicyHash }> {
  const { run, shelf, recipe, rng } = context;
  const lora = loraOf(recipe);
  const policy = await shelf.load(start, lora && { lora, rng: rng.split(phase.name).split('adapter') });
  const trainee: Trainee = { role, start, policy, stage: stageOf(phase, role) };
  const train = async () => {
    const trained =
      phase.on.method === 'sft'
        ? await trainOnDialogues(context, phase, phase.on, trainee)
        : await trainOnPairs(context, phase, phase.on, trainee, forks);
    return { ...trained, hash: await run.saveCheckpoint(policy) };
  };
  return cleaningUp(train, () => policy.dispose());
}

/** What every training of a run reports, and where its gradients are computed. */
function optionsOf<Example>(
  { run, shelf, progress, signal }: PhaseContext,
  { name }: TrainPhase,
  objective: Objective<Example>,
  { role, start, policy, stage }: Trainee,
): EpochsOptions<Example> {
  return {
    ...(signal === undefined ? {} : { signal }),
    computePasses: shelf.gradientsOf(objective, start, policy),
    onStart: (steps) => progress.begin(stage, steps, 'steps'),
    onStep: (report) => {
      run.record({ type: 'step.trained', phase: name, ...(role !== null && { role }), ...report });
      progress.advance(report.step + 1);
    },
  };
}

async function trainOnDialogues(
  context: PhaseContext,
  phase: TrainPhase,
  on: Extract<TrainPhase['on'], { method: 'sft' }>,
  trainee: Trainee,
): Promise<Trained> {
  const { recipe, progress, rng } = context;
  const { steps, loss, figures, skipped, truncated } = await trainSft(
    trainee.policy,
    chosenSequences(context, on, trainee),
    recipe.sft,
    rng.split(phase.name),
    optionsOf(context, phase, sftObjective, trainee),
  );
  const cut = `${truncated} sequences cut at ${recipe.sft.maxSequenceTokens} tokens, ${skipped} of them left out`;
  progress.end(`loss ${loss.toFixed(3)}${truncated > 0 ? `; ${cut}` : ''}`);
  return { steps, loss, figures, warnings: [] };
}

async function trainOnPairs(
  context: PhaseContext,
  phase: TrainPhase,
  on: Extract<TrainPhase['on'], { method: 'dpo' }>,
  trainee: Trainee,
  kept: KeptPairs,
): Promise<Trained> {
  const { progress, rng } = context;
  const config: DpoConfig = preferenceOf(context.recipe).dpo;
  const own = chosenPairs(context, on, trainee);
  const forked = await forkExamples(
    kept.filter(({ speaker }) => trainee.role === null || trainee.role === speaker),
    trainee.policy,
    config.maxSequenceTokens,
  );
  const { steps, loss, figures, tooLong, identical, warnings } = await trainDpo(
    trainee.policy,
    [...own, ...forked],
    config,
    rng.split(phase.name),
    optionsOf(context, phase, dpoObjective(config), trainee),
  );
  const percent = (share = 0) => `${(100 * share).toFixed(0)} %`;
  const left = [
    forked.length > 0 && `${forked.length} of the pairs from forks`,
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

/** The trainee's sequences of the dialogues that were chosen, best first; no more of the dialogues is held. */
function chosenSequences(
  { run, scenario }: PhaseContext,
  { dialogues, selection }: Extract<TrainPhase['on'], { method: 'sft' }>,
  { role, policy }: Trainee,
): TrainingSequence[] {
  // By dialogue, and where each role has a selection of its own, by role: of whom it is trained on.
  const chosen = new Map<
    DialogueId,
    { readonly of: readonly string[]; sequences: TrainingSequence[] | null }[]
  >();
  const inOrder: { readonly id: DialogueId; readonly sequences: TrainingSequence[] | null }[] = [];
  for (const event of run.eventsOf(selection)) {
    if (event.type !== 'selection.made') continue;
    for (const { dialogueId: id, role: keptFor } of event.kept) {
      const of = (keptFor === undefined ? trainedRoles(scenario) : [keptFor]).filter(
        (one) => role === null || one === role,
      );
      const entry = { id, of, sequences: null };
      chosen.set(id, [...(chosen.get(id) ?? []), entry]);
      inOrder.push(entry);
    }
  }
  for (const dialogue of run.dialoguesOf(dialogues)) {
    for (const entry of chosen.get(dialogue.id) ?? []) {
      const own = Object.entries(dialogue.views).filter(([role]) => entry.of.includes(role));
      entry.sequences = sftExamples({ ...dialogue, views: Object.fromEntries(own) }, policy);
    }
  }
  return inOrder.flatMap(({ id, sequences }) => {
    if (sequences !== null) return sequences;
    throw new OptimaError('run.corrupt', `${selection} chose ${id}, which ${dialogues} does not have.`);
  });
}

/** The chosen pairs of the trainee's turns, tree by tree. */
function chosenPairs(
  { run }: PhaseContext,
  { search, pairs: pairing }: Extract<TrainPhase['on'], { method: 'dpo' }>,
  { role, start, policy }: Trainee,
): PreferenceExample[] {
  const made = new Map<NodeId, RunEventOf<'pairs.made'>['pairs']>();
  for (const event of run.eventsOf(pairing)) {
    if (event.type === 'pairs.made' && event.pairs.length > 0) made.set(event.tree, event.pairs);
  }
  const examples: PreferenceExample[] = [];
  for (const { conversation, dealOf } of run.treesOf(search)) {
    for (const pair of made.get(conversation.root) ?? []) {
      if (role !== null && conversation.turns[pair.chosen]!.speaker !== role) continue;
      examples.push(preferenceExample(conversation, dealOf(), pair, policy, start));
    }
    made.delete(conversation.root);
  }
  const [lost] = made.keys();
  if (lost === undefined) return examples;
  throw new OptimaError('run.corrupt', `${pairing} has pairs of ${lost}, which ${search} does not have.`);
}

/** The one policy that speaks for every role that is trained. */
function sharedPolicy(scenario: Scenario, team: TeamPolicy): PolicyHash {
  const [first, ...others] = new Set(trainedRoles(scenario).map((role) => team[role]!));
  if (first === undefined || others.length > 0)
    throw new Error('The roles of the team do not share a policy.');
  return first;
}
