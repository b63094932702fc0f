// A run at a glance: its phases, how the team came out of each, and how its training went.
import type { PhaseOutput, RunEventOf } from '../../domain/events.ts';
import { mean } from '../../domain/metrics.ts';
import type { PhaseSummary, RunReader } from '../../reading/index.ts';
import type { CurvePoint, Figures, PhaseView, RunAnswer, RunEntry, StepPoint, TaskRow } from '../api.ts';

/** Most points that a phase's training is shown with. */
const mostSteps = 240;

/** A run's page; the figures of its entry are those of its log. */
export function runAnswer(reader: RunReader, entry: RunEntry): RunAnswer {
  const { manifest } = reader;
  const phases = reader.phases();
  const rows = taskRows(reader);
  return {
    entry: { ...entry, ...figuresIn(phases) },
    events: reader.size.events,
    command: manifest?.command ?? [],
    versions: {
      package: manifest?.version ?? '',
      node: manifest?.node ?? '',
      engine: manifest?.engine ?? '',
    },
    base: manifest?.base.hash ?? '',
    partners: Object.fromEntries(
      Object.entries(manifest?.partners ?? {}).map(([role, { folder }]) => [role, folder]),
    ),
    judge: manifest?.judge?.folder ?? null,
    recipe: manifest?.recipe ?? {},
    phases: phases.map(phaseView),
    curve: phases.flatMap(curvePoint),
    steps: phases.flatMap((phase) => stepsOf(reader, phase)),
    warnings: phases.flatMap(({ name, output }) =>
      output?.kind === 'train' ? output.warnings.map((warning) => `${name}: ${warning}`) : [],
    ),
    sampledTokens: phases.reduce((sum, { output }) => sum + sampledIn(output), 0),
    dialogues: rows.reduce((sum, row) => sum + row.dialogues, 0),
    failedDialogues: rows.reduce((sum, row) => sum + row.failed, 0),
  };
}

/** How the team came out: of the base, and last of the whole run or of its last iteration that trained. */
export function figuresIn(
  phases: readonly PhaseSummary[],
): Pick<RunEntry, 'isRead' | 'base' | 'latest' | 'iterations'> {
  const measured = (name: string) => figuresOf(phases.find((phase) => phase.name === name)?.output ?? null);
  const iterations = phases.filter(({ output }) => output?.kind === 'train').map(({ name }) => partOf(name));
  const within = phases.filter(({ name }) => iterations.length > 0 && partOf(name) === iterations.at(-1));
  const last =
    within.find(({ kind }) => kind === 'evaluate') ?? within.find(({ output }) => figuresOf(output));
  return {
    isRead: true,
    base: measured('base'),
    latest: measured('trained') ?? figuresOf(last?.output ?? null),
    iterations: iterations.length,
  };
}

/** The iteration that a phase is a part of. */
const partOf = (phase: string): string => phase.split('/')[0]!;

function figuresOf(output: PhaseOutput | null): Figures | null {
  if (output === null || !('metrics' in output)) return null;
  const { taskScore, taskScoreInterval: interval, tokens, n, failed } = output.metrics;
  return { taskScore, interval, tokens, n, failed };
}

const sampledIn = (output: PhaseOutput | null): number =>
  output !== null && 'sampledTokens' in output ? output.sampledTokens : 0;

const phaseView = ({
  name,
  kind,
  from,
  to,
  startedAt,
  endedAt,
  output,
  dialogues,
}: PhaseSummary): PhaseView => ({
  ...{ name, kind, startedAt, endedAt, output, dialogues },
  events: to === null ? null : to - from,
});

/** Where a phase measured the team as it was then; nothing for the others, nor where its policies were exchanged. */
function curvePoint({ name, output }: PhaseSummary): CurvePoint[] {
  const figures = figuresOf(output);
  if (output === null || figures === null || name === 'swapped') return [];
  const isTest = output.kind === 'evaluate' && !name.includes('/');
  const reward = 'meanReward' in output ? output.meanReward : null;
  return [{ label: partOf(name), phase: name, ...figures, reward, isTest }];
}

/** The steps of a training, as many as can be told apart on a screen: each the mean of those that it stands for. */
function stepsOf(reader: RunReader, phase: PhaseSummary): readonly StepPoint[] {
  if (phase.kind !== 'train') return [];
  const known = knownSteps.get(reader) ?? new Map<string, readonly StepPoint[]>();
  knownSteps.set(reader, known);
  const steps = known.get(phase.name) ?? readSteps(reader, phase);
  if (phase.to !== null) known.set(phase.name, steps);
  return steps;
}

/** Of the trainings that are over. */
const knownSteps = new WeakMap<RunReader, Map<string, readonly StepPoint[]>>();

function readSteps(reader: RunReader, { name, from, to }: PhaseSummary): StepPoint[] {
  const steps: RunEventOf<'step.trained'>[] = [];
  for (const event of reader.events(from, to ?? undefined))
    if (event.type === 'step.trained') steps.push(event);
  const each = Math.max(1, Math.ceil(steps.length / mostSteps));
  return Array.from({ length: Math.ceil(steps.length / each) }, (_, index) => {
    const part = steps.slice(index * each, (index + 1) * each);
    return {
      ...{ phase: name, step: part[0]!.step },
      loss: mean(part.map(({ loss }) => loss)),
      gradNorm: mean(part.map(({ gradNorm }) => gradNorm)),
    };
  });
}

const knownRows = new WeakMap<RunReader, { readonly events: number; readonly rows: readonly TaskRow[] }>();

/** Every task of every phase, with what its dialogues were worth; computed again where the log has grown. */
export function taskRows(reader: RunReader): readonly TaskRow[] {
  const { events } = reader.size;
  const known = knownRows.get(reader);
  if (known?.events === events) return known.rows;
  const rows = allRows(reader);
  knownRows.set(reader, { events, rows });
  return rows;
}

function allRows(reader: RunReader): TaskRow[] {
  return [...reader.trees()].map((tree) => {
    const { root, taskId, phase, dialogues, failed, taskScore, tokens, rewards, kept } = tree;
    const range = rewards ?? scoresOf(reader, root);
    return {
      ...{ tree: root, phase, taskId, dialogues, failed, taskScore },
      best: range?.[1] ?? null,
      worst: range?.[0] ?? null,
      gap: range === null ? null : range[1] - range[0],
      of: rewards === null ? 'task score' : 'reward',
      tokens: tokens === 0 ? null : tokens,
      kept: kept ?? 0,
    };
  });
}

/** Lowest and highest task score of a tree's dialogues; null without any. */
function scoresOf(reader: RunReader, tree: string): readonly [number, number] | null {
  const scores = [...reader.dialogues({ tree })].flatMap(({ taskScore }) => taskScore ?? []);
  return scores.length === 0 ? null : [Math.min(...scores), Math.max(...scores)];
}
