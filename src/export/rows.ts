// What a run trained on, row by row, as its log has it: a chosen dialogue in the view of one agent, or a pair of turns.
import { pathTo } from '../domain/conversation-tree.ts';
import { OptimaError } from '../domain/errors.ts';
import type { RunEvent, RunEventOf } from '../domain/events.ts';
import type { DialogueId, NodeId, PolicyHash, TaskId } from '../domain/ids.ts';
import type { ChatMessage, TrainablePolicy } from '../domain/model.ts';
import { type Trajectory, viewOf, writtenOf } from '../domain/transcript.ts';
import { ForkLog, forksPath, pairKey } from '../store/fork-log.ts';
import type { RunFolder } from '../store/run-folder.ts';
import { preferenceExample, responseIn } from '../training/dpo/examples.ts';
import { sftExamples } from '../training/sft/examples.ts';

/** A training of a run's plan, and the phases that it took what it trained on from. */
export interface PlannedTraining {
  readonly name: string;
  readonly iteration: number;
  readonly on:
    | { readonly method: 'sft'; readonly dialogues: string; readonly selection: string }
    | { readonly method: 'dpo'; readonly search: string; readonly pairs: string };
}

/** What every row says of where it comes from. */
interface Source {
  /** Names the row in its run: two exports give it the same one. */
  readonly id: string;
  readonly iteration: number;
  readonly task: TaskId;
  /** Whose view it is, and whose turns are trained on. */
  readonly role: string;
  /** The policy that said these. */
  readonly policy: PolicyHash;
}

/** A chosen dialogue as one agent saw it. */
export interface DialogueRow extends Source {
  readonly kind: 'dialogue';
  readonly dialogue: DialogueId;
  /** The reward it was chosen by. */
  readonly reward: number;
  /** The plain view, without a format prompt: its own turns are `assistant`, and those that it sampled are trained on. */
  readonly messages: readonly ChatMessage[];
  /** The whole view as the run trained on it, and which of the tokens count. */
  readonly tokenIds: readonly number[];
  readonly lossMask: readonly (0 | 1)[];
}

/** Two turns that answer the same, of which one is better. */
export interface PairRow extends Source {
  readonly kind: 'pair';
  /** What their speaker had read. */
  readonly prompt: readonly ChatMessage[];
  readonly chosen: string;
  readonly rejected: string;
  readonly promptIds: readonly number[];
  readonly chosenIds: readonly number[];
  readonly rejectedIds: readonly number[];
  /** Log-probabilities under the policy that said them, which is the reference, summed over tokens, nats; null of a fork. */
  readonly chosenLogprob: number | null;
  readonly rejectedLogprob: number | null;
  /** What the chosen turn was worth, and how much more than the rejected one. */
  readonly value: number;
  readonly gap: number;
  /** Number of the fork that it is of; null where the run itself sampled both turns. */
  readonly fork: number | null;
}

export type TrainingRow = DialogueRow | PairRow;

/** What rows are read from. */
export type RowSource = Pick<
  RunFolder,
  'manifest' | 'phases' | 'eventsOf' | 'dialoguesOf' | 'treesOf' | 'path'
>;

/** The ids of a view, as the run's tokenizer writes it. */
export type EncodeView = TrainablePolicy['encode'];

/** The trainings that the run has completed, in order. */
export const completedTrainings = (
  run: Pick<RunFolder, 'phases'>,
  trainings: readonly PlannedTraining[],
): PlannedTraining[] => trainings.filter(({ name }) => run.phases.has(name));

/**
 * The rows of completed trainings, in the order of the log; of a dialogue in the order of its roles. Read as they are asked for,
 * a cohort at a time. Throws `run.corrupt` as reading the log does.
 */
export function* trainingRows(
  run: RowSource,
  trainings: readonly PlannedTraining[],
  encode: EncodeView,
): Generator<TrainingRow> {
  const trained = trainedRolesOf(run);
  for (const training of completedTrainings(run, trainings)) {
    const { on, iteration } = training;
    if (on.method === 'sft') yield* dialogueRows(run, { ...on, iteration }, trained, encode);
    else {
      yield* pairRows(run, { ...on, iteration }, encode);
      yield* forkRows(run, training, encode);
    }
  }
}

/**
 * The roles whose policy any training made: the others have had the base, or their partner, all along. Where every training left
 * the weights as they were, all that have no partner.
 */
function trainedRolesOf({ manifest, phases }: RowSource): ReadonlySet<string> {
  const { base, partners = {} } = manifest;
  const policies = [...phases.values()].flatMap(({ output }) =>
    output.kind === 'train' ? Object.entries(output.policy) : [],
  );
  const own = policies.filter(([role]) => !Object.hasOwn(partners, role));
  const changed = own.filter(([, hash]) => hash !== base.hash);
  return new Set((changed.length > 0 ? changed : own).map(([role]) => role));
}

type Kept = RunEventOf<'selection.made'>['kept'][number];

function* dialogueRows(
  run: RowSource,
  {
    dialogues,
    selection,
    iteration,
  }: Extract<PlannedTraining['on'], { method: 'sft' }> & {
    readonly iteration: number;
  },
  trained: ReadonlySet<string>,
  encode: EncodeView,
): Generator<DialogueRow> {
  const chosen = new Map<DialogueId, Kept[]>();
  for (const kept of keptIn(run.eventsOf(selection))) {
    chosen.set(kept.dialogueId, [...(chosen.get(kept.dialogueId) ?? []), kept]);
  }
  for (const dialogue of run.dialoguesOf(dialogues)) {
    const kept = chosen.get(dialogue.id) ?? [];
    for (const role of Object.keys(dialogue.views)) {
      const by = kept.find((one) => one.role === undefined || one.role === role);
      if (by === undefined || !trained.has(role)) continue;
      const row = dialogueRow(dialogue, role, by, iteration, encode);
      if (row !== null) yield row;
    }
    chosen.delete(dialogue.id);
  }
  const [lost] = chosen.keys();
  if (lost !== undefined)
    throw new OptimaError('run.corrupt', `${selection} chose ${lost}, which ${dialogues} does not have.`);
}

function* keptIn(events: Iterable<RunEvent>): Generator<Kept> {
  for (const event of events) if (event.type === 'selection.made') yield* event.kept;
}

/** Null where nothing in the view was sampled by its own agent. */
function dialogueRow(
  dialogue: Trajectory,
  role: string,
  { reward, dialogueId, taskId }: Kept,
  iteration: number,
  encode: EncodeView,
): DialogueRow | null {
  const views = { [role]: dialogue.views[role]! };
  const [example] = sftExamples({ ...dialogue, views }, { encode });
  const own = dialogue.turns.find(({ speaker, provenance }) => speaker === role && provenance === 'sampled');
  if (example === undefined || own === undefined) return null;
  return {
    kind: 'dialogue',
    ...{ id: `${dialogueId}:${role}`, iteration, task: taskId, role, policy: own.policyHash },
    ...{ dialogue: dialogueId, reward, messages: viewOf(role, dialogue, dialogue.turns) },
    ...{ tokenIds: example.tokenIds, lossMask: example.lossMask },
  };
}

function* pairRows(
  run: RowSource,
  {
    search,
    pairs: pairing,
    iteration,
  }: Extract<PlannedTraining['on'], { method: 'dpo' }> & {
    readonly iteration: number;
  },
  encode: EncodeView,
): Generator<PairRow> {
  const made = new Map<NodeId, RunEventOf<'pairs.made'>>();
  for (const event of run.eventsOf(pairing)) {
    if (event.type === 'pairs.made' && event.pairs.length > 0) made.set(event.tree, event);
  }
  for (const { conversation, dealOf } of run.treesOf(search)) {
    for (const pair of made.get(conversation.root)?.pairs ?? []) {
      const [better, worse] = [conversation.turns[pair.chosen]!, conversation.turns[pair.rejected]!];
      const { speaker: role, policyHash: policy } = better;
      const example = preferenceExample(conversation, dealOf(), pair, { encode }, policy);
      const view = viewOf(role, dealOf(), [...pathTo(conversation, pair.parent), better]);
      yield {
        kind: 'pair',
        ...{ id: `${pair.chosen}>${pair.rejected}`, iteration, task: conversation.taskId, role, policy },
        // What it hears of its own round comes behind its turn.
        prompt: view.slice(
          0,
          view.findLastIndex((message) => message.role === 'assistant'),
        ),
        ...{ chosen: writtenOf(better), rejected: writtenOf(worse) },
        ...{ promptIds: example.promptIds, chosenIds: example.chosenIds, rejectedIds: example.rejectedIds },
        ...{ chosenLogprob: example.refChosen, rejectedLogprob: example.refRejected },
        ...{ value: pair.value, gap: pair.gap, fork: null },
      };
    }
    made.delete(conversation.root);
  }
  const [lost] = made.keys();
  if (lost !== undefined)
    throw new OptimaError('run.corrupt', `${pairing} has pairs of ${lost}, which ${search} does not have.`);
}

/** The pairs of forks that a training took beside its own. */
function* forkRows(
  run: RowSource,
  { name, iteration }: PlannedTraining,
  encode: EncodeView,
): Generator<PairRow> {
  const taken = takenIn(run.eventsOf(name));
  if (taken === null) return;
  const forks = ForkLog.read(run.path, taken.log.events);
  if (!forks.holds(taken.log)) {
    throw new OptimaError(
      'run.corrupt',
      `${forksPath(run.path)}: its first ${taken.log.events} events are not those that ${name} trained on.`,
      { hint: 'The file was cut, deleted or replaced; restore it.' },
    );
  }
  const wanted = new Set(taken.pairs.map(({ chosen, rejected, from }) => pairKey(chosen, rejected, from)));
  for (const { fork, taskId, speaker, view, chosen, rejected, value, gap, from } of forks.kept) {
    if (!wanted.has(pairKey(chosen.id, rejected.id, from))) continue;
    // Another run's nodes may have the ids of this one's.
    const id = `${from === undefined ? '' : `${from}/`}${chosen.id}>${rejected.id}`;
    const [better, worse] = [chosen, rejected].map(({ text, tokenIds }) =>
      responseIn([...view, { role: 'assistant', content: text, tokenIds }], tokenIds.length, { encode }),
    );
    yield {
      kind: 'pair',
      ...{ id, iteration, task: taskId, role: speaker, policy: chosen.policyHash, prompt: view },
      ...{ chosen: chosen.text, rejected: rejected.text, promptIds: better!.promptIds },
      ...{ chosenIds: better!.ids, rejectedIds: worse!.ids, chosenLogprob: null, rejectedLogprob: null },
      ...{ value, gap, fork },
    };
  }
}

/** What a training noted of forks, which stands behind its beginning. */
function takenIn(events: Iterable<RunEvent>): RunEventOf<'forks.taken'> | null {
  let number = 0;
  for (const event of events) {
    if (event.type === 'forks.taken') return event;
    if (++number === 2) break;
  }
  return null;
}
