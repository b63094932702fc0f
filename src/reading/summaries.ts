// What the index of a run says of a phase, a dialogue, a tree without reading the log.
import { type PhaseKind, type PhaseOutput, phaseOutputSchemas } from '../domain/events.ts';
import type { DialogueId, NodeId, TaskId } from '../domain/ids.ts';
import { mean } from '../domain/metrics.ts';
import type { RewardTerms } from '../domain/reward.ts';
import type { Outcome } from '../domain/transcript.ts';
import { type IndexedPhase, type IndexedTree, outcomes, type RunIndex } from './run-index.ts';

/** A phase, as far as the log has it. */
export interface PhaseSummary {
  readonly name: string;
  /** Null where it is not over and its name does not say it. */
  readonly kind: PhaseKind | null;
  /** Number of its first event. */
  readonly from: number;
  /** Number after its last event; null while it is not over. */
  readonly to: number | null;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly endedAt: string | null;
  readonly output: PhaseOutput | null;
  /** Dialogues that it has opened. */
  readonly dialogues: number;
}

/** What became of a dialogue: a row of the index. */
export interface DialogueSummary {
  readonly id: DialogueId;
  readonly tree: NodeId;
  readonly taskId: TaskId;
  readonly phase: string;
  readonly format: string | null;
  /** Null while it is held. */
  readonly outcome: Outcome | null;
  /** Its first 200 characters. */
  readonly failure: string | null;
  /** Null where there is no verdict. */
  readonly taskScore: number | null;
  readonly exactMatch: boolean | null;
  /** Of its messages, from the root on. */
  readonly tokens: number;
  readonly turns: number;
  /** Null where it has not been ranked, or has no reward. */
  readonly reward: number | null;
  readonly terms: RewardTerms | null;
  /** Whether it may be trained on; null where it has not been ranked. */
  readonly eligible: boolean | null;
  /** Whether it was selected to be trained on; null where nothing was selected of its phase, as of a search, which has pairs. */
  readonly kept: boolean | null;
}

/** What became of a task in a phase. */
export interface TreeSummary {
  readonly root: NodeId;
  readonly taskId: TaskId;
  readonly phase: string;
  readonly dialogues: number;
  /** Of those that are over. */
  readonly failed: number;
  /** Mean over the dialogues that have one; null without any. */
  readonly taskScore: number | null;
  /** Mean of the dialogues that are over and have not failed. */
  readonly tokens: number;
  /** Lowest and highest; null without any. */
  readonly rewards: readonly [lowest: number, highest: number] | null;
  /** Dialogues selected, or in a search pairs; null where nothing was chosen yet. */
  readonly kept: number | null;
}

export function phaseSummaryOf(phase: IndexedPhase): PhaseSummary {
  const { name, from, to, startedAt, endedAt, output, dialogues } = phase;
  return { name, kind: kindOf(phase), from, to, startedAt, endedAt, output, dialogues };
}

export function summaryOf(index: RunIndex, row: number): DialogueSummary {
  const { trees, phases, columns, formats, failures } = index.data;
  const { root, taskId, phase } = trees[columns.tree[row]!]!;
  const { name, chosen } = phases[phase]!;
  const taskScore = known(columns.taskScore[row]!);
  const reward = known(columns.reward[row]!);
  const { task, tokenShare, loss } = columns;
  // There may be hundreds of thousands: no object but this one is made.
  return {
    id: index.idOf(row),
    tree: root,
    taskId,
    phase: name,
    format: formats[columns.format[row]! - 1] ?? null,
    outcome: outcomes[columns.outcome[row]!]!,
    failure: failures[columns.failure[row]! - 1] ?? null,
    taskScore,
    exactMatch: taskScore === null ? null : columns.exactMatch[row] === 1,
    tokens: columns.tokens[row]!,
    turns: columns.turns[row]!,
    reward,
    terms: reward === null ? null : { task: task[row]!, tokenShare: tokenShare[row]!, loss: loss[row]! },
    eligible: columns.ranked[row] === 0 ? null : columns.eligible[row] === 1,
    kept: chosen ? columns.kept[row] === 1 : null,
  };
}

export function treeSummaryOf({ data }: RunIndex, tree: IndexedTree): TreeSummary {
  const { phases, columns } = data;
  const { root, taskId, rows, pairs, pairsKept } = tree;
  const { name, chosen } = phases[tree.phase]!;
  const ofRows = (column: Float64Array) => rows.flatMap((row) => known(column[row]!) ?? []);
  const [scores, rewards] = [ofRows(columns.taskScore), ofRows(columns.reward)];
  const endedAs = (outcome: Outcome) =>
    rows.filter((row) => columns.outcome[row] === outcomes.indexOf(outcome));
  const ended = [...endedAs('agreed'), ...endedAs('turn-cap')];
  return {
    ...{ root, taskId, phase: name, dialogues: rows.length, failed: endedAs('failed').length },
    taskScore: scores.length === 0 ? null : mean(scores),
    tokens: mean(ended.map((row) => columns.tokens[row]!)),
    rewards: rewards.length === 0 ? null : [Math.min(...rewards), Math.max(...rewards)],
    kept: pairs !== null ? pairsKept : chosen ? rows.filter((row) => columns.kept[row] === 1).length : null,
  };
}

/** What a column holds; NaN stands for null. */
const known = (value: number): number | null => (Number.isNaN(value) ? null : value);

/** What a phase does: as its output says it, else by its name (`src/run/plan.ts`). */
export function kindOf({ name, output }: IndexedPhase): PhaseKind | null {
  if (output !== null) return output.kind;
  if (['base', 'trained', 'swapped'].includes(name)) return 'evaluate';
  const last = name.slice(name.lastIndexOf('/') + 1);
  if (last === 'pilot') return 'generate';
  return Object.hasOwn(phaseOutputSchemas, last) ? (last as PhaseKind) : null;
}
